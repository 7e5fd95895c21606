"""Where Triton is: the endpoints that the setting `triton_url` means now, for names and files change."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

log = logging.getLogger(__name__)

ACCEPTED = "a comma-separated list of host:port, dns:host:port and file:/path, with ports from 1 to 65535"
_PLACE = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\],]+):([0-9]{1,5})")
_ANSWER_S = 2.0
"""A name server or a file system that takes longer is not waited for; its answer is taken by a later look."""


class Discovery:
    """All endpoints of one setting.

    Args:
        triton_url: see `Settings.triton_url`.

    Raises:
        ValueError: a part of it is none of what is accepted; the message names it.
    """

    def __init__(self, triton_url: str) -> None:
        self._sources = [_source(part.strip()) for part in triton_url.split(",")]

    async def look(self) -> frozenset[str]:
        """The endpoints there are now, host:port each; never fails, and takes two seconds at most.

        What cannot be looked up now is what it was before; at first, nothing.
        """
        return frozenset[str]().union(*await asyncio.gather(*(source.look() for source in self._sources)))


class _Source:
    """One part of the setting.

    Args:
        text: the part.
        find: looks its endpoints up; raises OSError or ValueError.
    """

    def __init__(self, text: str, find: Callable[[], Awaitable[frozenset[str]]]) -> None:
        self._text = text
        self._find = find
        self._search: asyncio.Future[frozenset[str]] | None = None
        self._known: frozenset[str] = frozenset()
        self._failing = False

    async def look(self) -> frozenset[str]:
        try:
            self._known = await self._answer()
        except (OSError, ValueError) as error:
            if not self._failing:
                kept = ", ".join(sorted(self._known)) or "none"
                log.warning(
                    "%s cannot be looked up (%s): its endpoints stay what they were: %s", self._text, error, kept
                )
            self._failing = True
        else:
            if self._failing:
                log.info("%s can be looked up again", self._text)
            self._failing = False
        return self._known

    async def _answer(self) -> frozenset[str]:
        # One search at a time, however long it takes: each holds a thread.
        search = self._search = self._search or asyncio.ensure_future(self._find())
        done, _ = await asyncio.wait({search}, timeout=_ANSWER_S)
        if not done:
            raise TimeoutError(f"no answer in {_ANSWER_S:g} s")
        self._search = None
        return search.result()


def _source(text: str) -> _Source:
    kind, _, rest = text.partition(":")
    if kind == "file":
        if not rest.startswith("/"):
            raise ValueError(f"{text!r} has no absolute path; accepted is {ACCEPTED}")
        return _Source(text, lambda: asyncio.to_thread(_read, Path(rest)))
    place = _place(rest if kind == "dns" else text)
    if place is None:
        raise ValueError(f"{text!r} is no Triton endpoint; accepted is {ACCEPTED}")
    host, port = place
    if kind == "dns":
        return _Source(text, lambda: _resolve(host, port))
    return _Source(text, lambda: _itself(f"{host}:{port}"))


def _place(text: str) -> tuple[str, int] | None:
    """Host and port, or None if they are not there."""
    match = _PLACE.fullmatch(text)
    return (match[1], int(match[2])) if match and 1 <= int(match[2]) <= 65535 else None


async def _itself(endpoint: str) -> frozenset[str]:
    return frozenset({endpoint})


async def _resolve(host: str, port: int) -> frozenset[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    addresses = {str(address[0]) for *_, address in found}
    return frozenset(f"[{address}]:{port}" if ":" in address else f"{address}:{port}" for address in addresses)


def _read(path: Path) -> frozenset[str]:
    endpoints: set[str] = set()
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if entry := line.partition("#")[0].strip():
            place = _place(entry)
            if place is None:
                raise ValueError(f"line {number} is {entry!r}; it must be host:port")
            endpoints.add(f"{place[0]}:{place[1]}")
    return frozenset(endpoints)
