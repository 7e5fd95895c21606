"""What is fuzzed: how a target looks, and the list of all."""

from __future__ import annotations

import importlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast


class Fuzzed:
    """Something that takes bytes from somebody else."""

    def seeds(self) -> Sequence[bytes]:
        """Inputs to begin with: valid ones, and ones at the edge of that."""
        raise NotImplementedError

    def one(self, data: bytes) -> None:
        """Take an input; any exception is a finding."""
        raise NotImplementedError

    def mend(self, data: bytes, chance: random.Random) -> bytes:
        """Make a changed input valid where a change would end it at the door: checksums, signatures."""
        return data


@dataclass(frozen=True)
class Target:
    """One of the things that are fuzzed."""

    name: str
    what: str
    """For the table."""
    place: str
    """`module:object`, a Fuzzed."""
    share: float
    """Of all inputs."""
    longest: int
    """The most bytes of an input."""
    packages: Sequence[str] = ("service", "upscale_client")
    """Whose Python code tells what is new about an input."""

    def load(self) -> Fuzzed:
        """Import it."""
        module, _, name = self.place.partition(":")
        return cast("Fuzzed", getattr(importlib.import_module(module), name))


TARGETS = [
    Target("wire", "frames' messages, beside protobuf's own parser", "tests.fuzz.wire:WIRE", 0.5, 512),
    Target("png", "PNG: header, size, pixels", "tests.fuzz.pictures:PNG", 0.12, 4096, ("service", "PIL")),
    Target("jpeg", "JPEG: header, size, pixels", "tests.fuzz.pictures:JPEG", 0.12, 4096, ("service", "PIL")),
    Target("webp", "WebP: header, size, pixels", "tests.fuzz.pictures:WEBP", 0.12, 4096, ("service", "PIL")),
    Target("calls", "requests and sessions, from the wire to the answer", "tests.fuzz.calls:CALLS", 0.01, 2048),
    Target("answers", "what the client library takes from a service", "tests.fuzz.answers:ANSWERS", 0.06, 512),
    Target("access", "tokens, keys and trace headers", "tests.fuzz.access:ACCESS", 0.05, 2048, ("service", "jwt")),
    Target("endpoints", "where Triton is: settings and files", "tests.fuzz.endpoints:ENDPOINTS", 0.02, 256),
]


def target(name: str) -> Target:
    """The target of that name; KeyError if there is none."""
    return {each.name: each for each in TARGETS}[name]
