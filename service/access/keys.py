"""Static keys, for set-ups without an identity provider.

`python -m service.access.keys CLIENT` makes one: it prints the key, which is the client's, and the line for the file
that `auth_keys` names. The file holds no key, only its SHA-256: keys are random and long, so that is enough.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import sys
from pathlib import Path

from service.access.files import ReloadedFiles

_LINE = re.compile(r"(?P<client>[\w.@:/-]{1,100})\s+sha256:(?P<digest>[0-9a-f]{64})")


class StaticKeys:
    """The clients of a file of keys.

    Raises:
        OSError, ValueError: the file cannot be read, or makes no sense.
    """

    def __init__(self, path: Path) -> None:
        self._clients = ReloadedFiles([path], _parse)

    def client(self, token: str) -> str | None:
        """Whose key it is; None if nobody's."""
        return self._clients.value.get(_digest(token))


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _parse(data: bytes) -> dict[str, str]:
    clients: dict[str, str] = {}
    for number, line in enumerate(data.decode().splitlines(), 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            # Not the line itself: somebody may have put a key there.
            raise ValueError(f"line {number} is not 'client sha256:<64 hex digits>'")
        clients[match["digest"]] = match["client"]
    return clients


def main() -> None:
    """Make a key."""
    client = " ".join(sys.argv[1:])
    key = secrets.token_urlsafe(32)
    line = f"{client} sha256:{_digest(key)}"
    if not _LINE.fullmatch(line):
        print("usage: python -m service.access.keys CLIENT   (letters, digits and .@:/_-)", file=sys.stderr)
        raise SystemExit(2)
    print(f"the client's token, shown once: {key}", file=sys.stderr)
    print(line)


if __name__ == "__main__":
    main()
