"""Where Triton is: the setting, and the file that it may name. Nothing is looked up."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from service import discovery
from tests.fuzz.fuzzed import Fuzzed


class Endpoints(Fuzzed):
    """The first byte says whether it is the setting or a file."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._file = Path(self._folder.name) / "endpoints"

    def seeds(self) -> Sequence[bytes]:
        return [
            b"\0a:1",
            b"\0127.0.0.1:8001,dns:triton:8001",
            b"\0file:/etc/endpoints, [::1]:65535",
            b"\1a:1\n# none\n[fe80::1]:80 # b\n\n",
        ]

    def one(self, data: bytes) -> None:
        if not data:
            return
        try:
            if data[0] % 2 == 0:
                discovery.Discovery(data[1:].decode("utf-8", "surrogateescape"))
                return
            self._file.write_bytes(data[1:])
            found = discovery._read(self._file)  # pyright: ignore[reportPrivateUsage]
        except ValueError:
            return
        for each in found:
            assert 1 <= int(each.rpartition(":")[2]) <= 65535
            assert "\n" not in each


ENDPOINTS = Endpoints()
