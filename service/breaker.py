"""When an endpoint that fails is left alone, and when it is tried again. Knows no clock: the caller tells the time."""

from __future__ import annotations

from typing import Literal

State = Literal["closed", "open", "half-open"]


class Breaker:
    """Of one endpoint: closed while it works, open while it is left alone, half-open while one batch tries it.

    Who starts a batch there says so (`began`), and then how it ended: `succeeded`, `failed` or `undecided`. Times are
    seconds on any one clock.

    Args:
        failures: so many in a row open it.
        first_pause_s: how long it is open at first; each trial that fails doubles that.
        longest_pause_s: at most.
    """

    def __init__(self, failures: int = 3, first_pause_s: float = 0.5, longest_pause_s: float = 8.0) -> None:
        self._most_failures = failures
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._state: State = "closed"
        self._failures = 0
        self._pause_s = first_pause_s
        self._open_until = 0.0

    @property
    def state(self) -> State:
        """For the metrics. It stays open after its pause until somebody begins the trial."""
        return self._state

    def allows(self, now: float) -> bool:
        """Whether a batch may begin; asking changes nothing."""
        return self._state == "closed" or (self._state == "open" and now >= self._open_until)

    def began(self, now: float) -> None:
        """A batch that was allowed has begun; after a pause it is the trial, and the only one."""
        assert self.allows(now), "began a batch that the breaker does not allow. This is a bug."
        if self._state == "open":
            self._state = "half-open"

    def succeeded(self) -> None:
        """A batch was answered. While it is open that is an old one, begun before the failures: it changes nothing."""
        if self._state != "open":
            self._state = "closed"
            self._failures = 0
            self._pause_s = self._first_pause_s

    def failed(self, now: float) -> None:
        """A batch was not answered. While it is open that is an old one: it does not make the pause longer."""
        if self._state == "half-open":
            self._pause_s = min(2 * self._pause_s, self._longest_pause_s)
            self._open(now)
        elif self._state == "closed":
            self._failures += 1
            if self._failures >= self._most_failures:
                self._open(now)

    def undecided(self) -> None:
        """A batch ended and told nothing of the endpoint: its client's region was gone. Another may be the trial."""
        if self._state == "half-open":
            self._state = "open"

    def _open(self, now: float) -> None:
        self._state = "open"
        self._open_until = now + self._pause_s
