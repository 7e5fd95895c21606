"""What a user of `python -m benchmark` can mend."""

from __future__ import annotations


class BenchmarkError(RuntimeError):
    """A benchmark cannot be run as asked; the message is for the person who asked."""
