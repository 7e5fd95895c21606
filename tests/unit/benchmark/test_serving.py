"""The serving benchmark without servers: what it counts, compares, writes and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest

from benchmark.errors import BenchmarkError
from benchmark.serving import chain, peers
from benchmark.serving.clients import LocalClients, clients_of
from benchmark.serving.frames import Sample
from benchmark.serving.measure import Row, Servers, closed_loop, cpu_seconds, percentiles_ms, take_turns
from benchmark.serving.photographs import as_nv12, photographs
from benchmark.serving.report import TARGETS, as_dict, ratios, write_page
from benchmark.serving.repository import make_repository
from benchmark.serving.task import HEIGHT, WIDTH
from benchmark.serving.ways import Ask, Pixels, Refused, Way, identity_in_process
from deploy.local import ROOT

SAMPLES = [Sample(np.full((4, 6, 3), number, np.uint8)) for number in range(4)]


def identity(frame: Pixels) -> Pixels:
    answer = np.zeros((frame.shape[0] * 2, frame.shape[1] * 2, 3), np.uint8)
    answer.reshape(-1)[:64] = frame.reshape(-1)[:64]
    return answer


def slowly(frames: Iterable[Pixels]) -> Iterator[Pixels]:
    for frame in frames:
        time.sleep(0.02)
        yield identity(frame)


def row(**more: Any) -> Row:
    return Row(Way("way", "A way", "identity", "gateway", lambda: nullcontext(slowly), **more))


def clients(ask: Ask = slowly, several: int = 1, samples: list[Sample] = SAMPLES, **more: Any) -> LocalClients:
    return LocalClients(row(**more).way, [ask] * several, samples)


def way(model: str, name: str, p50: float, fps: float = 1, cpu: float | None = None) -> dict[str, Any]:
    return {"model": model, "way": name, "p50_ms": p50, "frames_per_s_1": fps, "cpu_s_per_frame": cpu}


def test_ratios_compare_like_with_like() -> None:
    found = ratios(
        [
            way("identity", "in_process", 2),
            way("identity", "triton_bytes", 100),
            way("identity", "triton_shm", 10),
            way("identity", "gateway_unary_rgb24", 50, cpu=0.040),
            way("identity", "gateway_unary_nv12", 30, cpu=0.020),
            way("identity", "gateway_shm_rgb24", 11, cpu=0.003),
            way("identity", "litserve", 200),
            way("identity", "bentoml", 122),
            way("identity", "bentoml_hosted", 20),
            way("runet", "in_process", 300, fps=4),
            way("runet", "gateway_stream_rgb24", 300, fps=3.9),
            way("runet", "bentoml", 3),
        ]
    )
    assert found == {
        "unary_rgb_vs_triton_bytes": 0.5,
        "shm_vs_triton_shm": 1.1,
        "stream_runet_vs_ort": 0.975,
        "cpu_nv12_vs_rgb": 0.5,
        "cpu_shm_vs_rgb": 0.075,
        "overhead_vs_best_peer": 0.4,  # (50 - 2) / (122 - 2)
    }
    assert found.keys() == TARGETS.keys()


def test_a_ratio_of_what_was_not_measured_is_null() -> None:
    found = ratios([way("identity", "gateway_unary_rgb24", 50, cpu=0.04), way("identity", "triton_bytes", 100)])
    assert found.pop("unary_rgb_vs_triton_bytes") == 0.5
    assert set(found.values()) == {None}
    assert len(found) == 5


def test_percentiles() -> None:
    seconds = [number / 1000 for number in range(1, 102)]
    assert percentiles_ms(seconds) == {"p50_ms": 51, "p95_ms": 96, "p99_ms": 100}
    assert percentiles_ms([]) == {"p50_ms": None, "p95_ms": None, "p99_ms": None}


def test_a_process_is_charged_what_it_used_and_its_children_are_found() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\nprint('done', flush=True)\ninput()"
    child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])"
    for code, family in ((burn, False), (child, True)):
        with subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "done\n"
            measured = row()
            # What a closed loop charges is what was used while it ran: nothing any more.
            closed_loop(measured, clients(), 1, 0.1, Servers(process.pid))
            pids = [process.pid, *(each.pid for each in psutil.Process(process.pid).children())]
            used = sum(map(cpu_seconds, pids))
            told = sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)
            process.communicate("\n")
        assert len(pids) == 1 + family
        assert used >= 0.3
        assert used == pytest.approx(told, abs=0.05)
        assert measured.front_cpu_s < 0.02
        assert measured.peak_rss_bytes > 2**20 * len(pids)
    assert cpu_seconds(process.pid) == 0


def test_a_frames_time_in_a_stream_runs_from_its_own_sending() -> None:
    def two_in_flight(frames: Iterable[Pixels]) -> Iterator[Pixels]:
        waiting: deque[Pixels] = deque()
        for frame in frames:
            waiting.append(frame)
            if len(waiting) == 2:
                time.sleep(0.02)
                yield identity(waiting.popleft())
        for frame in waiting:
            time.sleep(0.02)
            yield identity(frame)

    measured = row(turn=4)
    list(take_turns([measured], {"way": clients(two_in_flight, turn=4)}, rounds=2))
    assert measured.verified == len(measured.seconds) == 8
    # The first answer waits for one frame, the others for their own and the one before them.
    assert measured.seconds[1] > 0.035
    assert sum(measured.seconds) > 2 * (0.02 + 3 * 0.04) - 0.01


def test_the_closed_loop_counts_every_client() -> None:
    measured = row()
    closed_loop(measured, clients(), 1, 0.3, None)
    closed_loop(measured, clients(several=4), 4, 0.3, None)
    assert measured.frames_per_s(1) <= 50
    assert 2 * measured.frames_per_s(1) < measured.frames_per_s(4) <= 200
    assert measured.verified == measured.answered[1] + measured.answered[4]
    measured.seconds = [0.02]
    told = as_dict(measured)
    assert told["verified"] == measured.verified
    assert (told["cpu_s_per_frame"], told["frames_per_s_4"]) == (0, round(measured.frames_per_s(4), 2))


def test_the_open_loop_tells_answers_from_refusals() -> None:
    turns = iter(range(1000))

    def every_other(frames: Iterable[Pixels]) -> Iterator[Pixels]:
        if next(turns) % 2:
            raise Refused("no room", grpc.StatusCode.RESOURCE_EXHAUSTED)
        return slowly(frames)

    told = clients(every_other).open(rate=100, seconds=0.5)
    assert told["offered"] == told["answered"] + told["refused"]  # pyright: ignore[reportOperatorIssue]
    assert told["failed"] == 0
    assert told["offered"] == pytest.approx(50, abs=25)
    assert told["p50_ms"] is not None
    assert told["p50_ms"] >= 20


def test_another_frames_answer_is_found_out() -> None:
    last = SAMPLES[0].pixels

    def late(frames: Iterable[Pixels]) -> Iterator[Pixels]:
        nonlocal last
        for frame in frames:
            yield identity(last)
            last = frame

    with pytest.raises(BenchmarkError, match="A way answered with something else than the frame it was sent"):
        clients(late, turn=2).turn(0)
    with pytest.raises(BenchmarkError, match="A way left 1 frames without an answer"):
        clients(lambda frames: iter([identity(frame) for frame in frames][:3]), turn=4).turn(0)
    network = Sample(SAMPLES[1].pixels).answered(np.full((8, 12, 3), 100, np.uint8))
    assert network.check(np.full((8, 12, 3), 101, np.uint8), "engines differ by a grey level") == 1
    with pytest.raises(BenchmarkError):
        network.check(np.full((8, 12, 3), 102, np.uint8), "and no more")


def test_clients_in_a_process_of_their_own_do_as_those_here() -> None:
    way = identity_in_process()
    samples = [Sample(np.full((8, 12, 3), number, np.uint8)) for number in range(2)]
    with clients_of(way, samples, 2) as remote:
        assert len(remote.turn(0)) == way.turn
        answered, elapsed = remote.closed(2, 0.1)
        assert len(answered) > 2
        assert remote.largest_difference() == 0
        assert elapsed >= 0.1
        told = remote.open(50, 0.2)
        assert told["offered"] == told["answered"]
    wrong = [Sample(samples[0].pixels).answered(np.full((16, 24, 3), 99, np.uint8))]
    with clients_of(way, wrong, 1) as remote:
        with pytest.raises(BenchmarkError, match="called in-process answered with something else"):
            remote.turn(0)
        remote._process.kill()  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(BenchmarkError, match="called in-process: the client's process ended with -9"):
            remote.turn(0)


def test_the_frames_can_be_told_apart_in_both_formats() -> None:
    frames = photographs()
    planar = [as_nv12(frame) for frame in frames]
    assert {frame.pixels.shape for frame in frames} == {(HEIGHT, WIDTH, 3)}
    assert {frame.pixels.shape for frame in planar} == {(HEIGHT * 3 // 2, WIDTH)}
    for samples in (frames, planar):
        assert len({sample.pixels.tobytes()[:64] for sample in samples}) == 4


def test_the_page_keeps_what_others_wrote(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    write_page(page, "one")
    page.write_text(page.read_text().replace("# Performance", "# Performance\n\nWords before.") + "\nWords after.\n")
    write_page(page, "two")
    text = page.read_text()
    assert "one" not in text
    assert text.index("Words before.") < text.index("two") < text.index("Words after.")


def test_the_page_has_the_table_of_the_chain_on_a_gpu() -> None:
    report = json.loads((ROOT / "docs" / "benchmarks" / "chain-h200.json").read_text())
    page = (ROOT / "docs" / "performance.md").read_text()
    assert chain.markdown(report) in page
    assert "| runet | 4 | shared memory | 4 | 150.7 | 25.7 | 33.8 | 157 | 179.8 | 21.4 | 30.0 | 186 | 0.84 |" in page


def test_what_is_missing_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peers, "ENVIRONMENT", tmp_path / ".venv-peers")
    with pytest.raises(BenchmarkError) as refusal:
        peers.check_installed()
    assert str(refusal.value) == "no peers in .venv-peers: run 'make peers', or leave them out with --no-peers"
    with pytest.raises(BenchmarkError, match="run 'python export/ --model runet --scale 2' first"):
        make_repository(tmp_path / "models", tmp_path / "nothing", ["rgb24"])
