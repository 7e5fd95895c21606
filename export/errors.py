"""What can go wrong in an export and a person can mend."""


class ExportError(Exception):
    """Base of this tree; the message is one line for the person at the terminal."""


class MissingToolError(ExportError):
    """A tool this format needs is not on this machine."""


class ParityError(ExportError):
    """The exported model does not compute what the network computes; nothing was written."""


class RepositoryError(ExportError):
    """The model repository cannot be written."""
