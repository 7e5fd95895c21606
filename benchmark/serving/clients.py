"""The clients of a way, in a process of their own, as the way's users have them: its allocator is nobody else's."""

from __future__ import annotations

import itertools
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from benchmark.errors import BenchmarkError
from benchmark.serving.frames import Sample
from benchmark.serving.measure import percentiles_ms
from benchmark.serving.ways import Ask, Pixels, Refused, Way
from upscale_client import UpscaleError
from upscale_client.allocator import keep_large_buffers

_SENDERS = 32
_END_S = 10


class LocalClients:
    """Clients in this process.

    Args:
        way: theirs.
        asks: each client's.
        samples: what they send.
    """

    def __init__(self, way: Way, asks: Sequence[Ask], samples: Sequence[Sample]) -> None:
        self._way = way
        self._asks = asks
        self._samples = samples
        self._largest_difference = 0

    def largest_difference(self) -> int:
        """By which an answer differed from what was expected so far, in grey levels."""
        return self._largest_difference

    def turn(self, number: int) -> list[float]:
        """One client's frames of a turn; see `measure.Clients`."""
        first = number * self._way.turn
        return self._ask_all(self._asks[0], itertools.islice(self._supply(first), self._way.turn))

    def closed(self, clients: int, seconds: float) -> tuple[list[float], float]:
        """Each client's next frame as soon as there is an answer; see `measure.Clients`."""
        # A bug in one client must not leave the others waiting for it.
        start = threading.Barrier(clients, timeout=60)

        def client(number: int) -> tuple[float, float, list[float]]:
            start.wait()
            began = time.perf_counter()
            taken = itertools.takewhile(lambda _: time.perf_counter() < began + seconds, self._supply(number))
            times = self._ask_all(self._asks[number], taken)
            return began, time.perf_counter(), times

        with ThreadPoolExecutor(clients) as pool:
            done = list(pool.map(client, range(clients)))
        elapsed = max(end for _, end, _ in done) - min(began for began, _, _ in done)
        return [each for _, _, times in done for each in times], elapsed

    def open(self, rate: float, seconds: float) -> dict[str, float | int | None]:
        """Frames at a rate, by chance (Poisson) and whether or not there is an answer to the last one.

        A frame's time runs from the moment it was due, so that a client that comes late hides nothing.
        """
        gaps = np.random.default_rng(1).exponential(1 / rate, size=max(1, round(3 * rate * seconds)))
        due = [at for at in np.cumsum(gaps) if at < seconds]
        begin = time.perf_counter()

        def send(number: int) -> tuple[str, float, float]:
            ask, sample = self._asks[number % len(self._asks)], self._samples[number % len(self._samples)]
            try:
                answer = next(ask([sample.pixels]))
            except Refused:
                return "refused", 0.0, time.perf_counter()
            except UpscaleError:
                return "failed", 0.0, time.perf_counter()
            now = time.perf_counter()
            sample.check(answer, self._way.label)
            return "answered", now - begin - due[number], now

        with ThreadPoolExecutor(_SENDERS) as pool:
            futures = []
            for number, at in enumerate(due):
                time.sleep(max(0.0, begin + at - time.perf_counter()))
                futures.append(pool.submit(send, number))
            done = [future.result() for future in futures]
        times = [took for outcome, took, _ in done if outcome == "answered"]
        end = max((at for _, _, at in done), default=begin)
        return {
            "offered_per_s": round(rate, 2),
            "offered": len(due),
            "answered": len(times),
            "refused": sum(outcome == "refused" for outcome, _, _ in done),
            "failed": sum(outcome == "failed" for outcome, _, _ in done),
            "goodput_per_s": round(len(times) / max(end - begin, seconds), 2),
            **percentiles_ms(times),
        }

    def _supply(self, first: int) -> Iterator[Sample]:
        """The samples, over and over, from one of them."""
        first %= len(self._samples)
        return itertools.cycle([*self._samples[first:], *self._samples[:first]])

    def _ask_all(self, ask: Ask, samples: Iterable[Sample]) -> list[float]:
        """Have frames enlarged and their answers checked; returns the seconds of each.

        Raises:
            BenchmarkError: an answer is wrong, or there is none.
        """
        sent: deque[tuple[float, Sample]] = deque()
        label = self._way.label

        def feed() -> Iterator[Pixels]:
            for sample in samples:
                sent.append((time.perf_counter(), sample))
                yield sample.pixels

        seconds: list[float] = []
        try:
            for answer in ask(feed()):
                now = time.perf_counter()
                began, sample = sent.popleft()
                seconds.append(now - began)
                self._largest_difference = max(self._largest_difference, sample.check(answer, label))
        except UpscaleError as error:
            raise BenchmarkError(f"{label}: {error}") from None
        if sent:
            raise BenchmarkError(f"{label} left {len(sent)} frames without an answer")
        return seconds


class RemoteClients:
    """Clients in a process of their own; made by `clients_of`."""

    def __init__(self, way: Way, process: subprocess.Popen[bytes], connection: Connection[Any, Any]) -> None:
        self._way = way
        self._process = process
        self._connection = connection

    def turn(self, number: int) -> list[float]:
        """As `LocalClients.turn`."""
        return self.call("turn", number)

    def closed(self, clients: int, seconds: float) -> tuple[list[float], float]:
        """As `LocalClients.closed`."""
        return self.call("closed", clients, seconds)

    def open(self, rate: float, seconds: float) -> dict[str, float | int | None]:
        """As `LocalClients.open`."""
        return self.call("open", rate, seconds)

    def largest_difference(self) -> int:
        """As `LocalClients.largest_difference`."""
        return self.call("largest_difference")

    def call(self, *message: Any) -> Any:
        """Send a message and return its answer.

        Raises:
            BenchmarkError: what the process says, or that it has ended.
        """
        try:
            self._connection.send(message)
            answer = self._connection.recv()
        except (EOFError, OSError):
            code = self._process.wait(_END_S)
            raise BenchmarkError(f"{self._way.label}: the client's process ended with {code}") from None
        if isinstance(answer, BenchmarkError):
            raise answer
        return answer


@contextmanager
def clients_of(
    way: Way, samples: Sequence[Sample], most: int, *, keep_buffers: bool = False
) -> Generator[RemoteClients]:
    """Start a process with `most` clients of a way, connected.

    Args:
        way: theirs.
        samples: what they send.
        most: clients.
        keep_buffers: have the process's allocator keep large buffers, whatever the way's own client does about that.

    Raises:
        BenchmarkError: they cannot be had.
    """
    pair, theirs = socket.socketpair()
    ours: Connection[Any, Any] = Connection(pair.detach())
    command = [sys.executable, "-m", "benchmark.serving.clients", str(theirs.fileno())]
    with ours, subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL) as process:
        theirs.close()
        clients = RemoteClients(way, process, ours)
        try:
            clients.call(way, samples, most, keep_buffers)
            yield clients
        finally:
            ours.close()  # it ends by that
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _serve(connection: Connection[Any, Any]) -> None:
    """Be the clients that the process at the other end asks for, until it hangs up."""
    way, samples, most, keep_buffers = connection.recv()
    if keep_buffers:
        keep_large_buffers()
    with ExitStack() as stack:
        clients = LocalClients(way, [stack.enter_context(way.connect()) for _ in range(most)], samples)
        answer: Any = None
        while True:
            connection.send(answer)
            try:
                name, *arguments = connection.recv()
            except EOFError:
                return
            try:
                answer = getattr(clients, name)(*arguments)
            except BenchmarkError as error:
                answer = error


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it ends it
    _serve(Connection(int(sys.argv[1])))
