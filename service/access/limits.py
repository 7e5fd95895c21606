"""How much one client may ask for. Pure logic: the time is an argument.

A client that leaves is forgotten as soon as its allowance is whole again, so that there is no end to how many may come.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator

from service.errors import ClientLimitError

_TIDY_EVERY = 1000


class _Allowance:
    """What one client has left."""

    def __init__(self, frames: float, now: float) -> None:
        self.frames = frames
        self.at = now
        self.sessions = 0


class ClientLimits:
    """Token buckets for frames, and counts of what is open; 0 stands for no limit.

    Args:
        frames_per_s: how fast a client's allowance of frames is filled up again.
        burst: frames in a whole one.
        sessions: of UpscaleStream, open at once.
    """

    def __init__(self, *, frames_per_s: float, burst: int, sessions: int) -> None:
        self._frames_per_s = frames_per_s
        self._burst = burst
        self._sessions = sessions
        self._clients: dict[str, _Allowance] = {}
        self._until_tidying = _TIDY_EVERY

    def take_frame(self, client: str, now: float) -> None:
        """One more frame of the client's.

        Raises:
            ClientLimitError: it has used up its allowance.
        """
        if not self._frames_per_s:
            return
        allowance = self._of(client, now)
        self._fill(allowance, now)
        if allowance.frames < 1:
            raise ClientLimitError(
                f"client {client!r} sends more than {self._frames_per_s:g} frames a second, the most allowed for one",
                (1 - allowance.frames) / self._frames_per_s,
            )
        allowance.frames -= 1

    @contextlib.contextmanager
    def session(self, client: str, now: float) -> Generator[None]:
        """A session of the client's is open as long as this is entered.

        Raises:
            ClientLimitError: it has too many.
        """
        allowance = self._of(client, now)
        if self._sessions and allowance.sessions >= self._sessions:
            raise ClientLimitError(f"client {client!r} has {self._sessions} sessions open, the most allowed for one")
        allowance.sessions += 1
        try:
            yield
        finally:
            allowance.sessions -= 1

    def __len__(self) -> int:
        """Clients that are remembered."""
        return len(self._clients)

    def _of(self, client: str, now: float) -> _Allowance:
        self._until_tidying -= 1
        if self._until_tidying <= 0:
            self._tidy(now)
        if client not in self._clients:
            self._clients[client] = _Allowance(self._burst, now)
        return self._clients[client]

    def _fill(self, allowance: _Allowance, now: float) -> None:
        allowance.frames = min(self._burst, allowance.frames + (now - allowance.at) * self._frames_per_s)
        allowance.at = now

    def _tidy(self, now: float) -> None:
        for name, allowance in list(self._clients.items()):
            self._fill(allowance, now)
            if not allowance.sessions and allowance.frames >= self._burst:
                del self._clients[name]
        # In proportion, so that tidying costs each call the same however many there are.
        self._until_tidying = max(_TIDY_EVERY, len(self._clients))
