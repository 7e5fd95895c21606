"""What a load and a soak find: planted wrongs are seen."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest

from benchmark.reliability.load import Load, Tally
from benchmark.reliability.service import Held
from benchmark.reliability.soak import Sample, judge
from upscale_client import Upscaled, UpscaleError


def answer(data: bytes) -> Upscaled:
    return Upscaled(2, 2, "rgb24", data, "runet", "runet_x2_clean", {}, 1)


async def give(what: Upscaled | UpscaleError) -> Upscaled:
    if isinstance(what, UpscaleError):
        raise what
    return what


async def tally_of(what: Upscaled | UpscaleError) -> Tally:
    load = Load("nowhere:1", {("RGB24", 0, "runet_x2_clean"): b"right"})
    await load._one("RGB24", 0, lambda: give(what))  # pyright: ignore[reportPrivateUsage]
    return load.tally


async def test_an_answer_is_right_to_the_bit_or_wrong() -> None:
    right, wrong = await tally_of(answer(b"right")), await tally_of(answer(b"wrong"))
    assert (right.right, right.wrong) == (1, [])
    assert (wrong.right, wrong.wrong) == (
        0,
        ["RGB24, picture 0, by runet_x2_clean: 5 of 5 bytes differ, from 0 to 4, by at most 13"],
    )


async def test_a_frame_without_a_word_is_lost_and_one_that_was_refused_is_not() -> None:
    silent = await tally_of(UpscaleError("deadline", grpc.StatusCode.DEADLINE_EXCEEDED))
    refused = await tally_of(UpscaleError("too late", grpc.StatusCode.DEADLINE_EXCEEDED, "BUDGET_SPENT"))
    assert (len(silent.lost), len(refused.lost)) == (1, 0)
    assert silent.done == refused.done == 1


def test_recovery_counts_frames_that_were_sent_when_all_was_well() -> None:
    tally = Tally(seconds=[(10.0, 5.0), (11.0, 0.5), (12.0, 0.1)])
    assert tally.first_right_since(10.2) == 11.0
    assert tally.first_right_since(11.95) is None


def test_a_leak_is_what_grows_by_more_than_pools_do() -> None:
    before = Held(0, 0, 0, 20, 30, 12, 0, 0)
    assert replace(before, descriptors=34, threads=16).more_than(before) == {}
    assert replace(before, descriptors=38, slots=1).more_than(before) == {"slots": 1, "descriptors": 8}


def samples(**change: Callable[[int], Any]) -> list[Sample]:
    rng = random.Random(0)
    flat = [
        Sample(float(at), 100 * 2**20 + rng.randrange(2**19), 10**9, 20, 12, 28, 100 * at, 30 + rng.random())
        for at in range(240)
    ]
    return [
        replace(sample, **{name: value(number) for name, value in change.items()}) for number, sample in enumerate(flat)
    ]


def test_a_flat_service_is_found_flat() -> None:
    assert judge(samples())["findings"] == []


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"memory_bytes": lambda at: 100 * 2**20 + at * 2**13}, "memory grows by 1.5%"),
        ({"descriptors": lambda at: 20 + at // 20}, "descriptors: "),
        ({"tasks": lambda at: 20 + at // 10}, "tasks: "),
        ({"latency_ms": lambda at: 30.0 if at < 140 else 60.0}, "a frame takes 30.0 ms at first, 60.0 ms later"),
    ],
)
def test_what_grows_is_found(change: dict[str, Callable[[int], Any]], finding: str) -> None:
    findings = judge(samples(**change))["findings"]
    assert len(findings) == 1
    assert findings[0].startswith(finding)


def test_what_only_warms_up_is_no_leak() -> None:
    assert judge(samples(memory_bytes=lambda at: (100 - max(0, 40 - at)) * 2**20))["findings"] == []
