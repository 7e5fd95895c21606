"""What the service says of itself: log lines of the real gateway, and traces to a receiver that speaks OTLP."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider

from deploy.embedded import EmbeddedTriton
from deploy.embedded.server import free_port
from deploy.local import ROOT, GatewayProcess
from tests.integration.test_workers import workers
from upscale_client import InvalidRequestError, ModelNotFoundError, UpscaleClient, UpscaleError
from upscale_client.v1 import upscale_pb2 as pb
from upscale_client.v1.upscale_pb2_grpc import UpscaleServiceStub

Line = dict[str, Any]
Span = Any  # of opentelemetry-proto
FRAME = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)
STAGES = ["receive", "decode", "queue", "infer", "encode"]
SENT_SAMPLED = TracerProvider().get_tracer("a player")


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP receiver that keeps the spans it gets."""

    def __init__(self, port: int) -> None:
        self.spans: list[Span] = []
        self.resources: list[dict[str, str]] = []
        self._server = grpc.server(ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        assert self._server.add_insecure_port(f"127.0.0.1:{port}") == port
        self._server.start()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        for resource in request.resource_spans:
            self.resources.append({each.key: each.value.string_value for each in resource.resource.attributes})
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()

    def stop(self) -> None:
        self._server.stop(None).wait()


def until(condition: Callable[[], Any], what: str, within_s: float = 30) -> Any:
    """Wait for a condition; returns what it gave."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.05)
    return found


class Scene:
    """A gateway that logs JSON to a file, and perhaps a receiver of its traces."""

    def __init__(self, triton: EmbeddedTriton, log: Path, receiver: Receiver | None, **settings: object) -> None:
        ports = {"port": free_port(), "metrics_port": free_port()}
        usual = {"host": "127.0.0.1", "default_profile": "clean", "warm_up_s": 0, "log_format": "json", **ports}
        self._log = log
        self._receiver = receiver
        self.gateway = GatewayProcess(triton.url, usual | settings, log)

    def lines(self, **wanted: object) -> list[Line]:
        """The log, every line of it JSON; those with these values."""
        lines: list[Line] = [json.loads(line) for line in self._log.read_text().splitlines()]
        return [line for line in lines if all(line.get(key) == value for key, value in wanted.items())]

    def line(self, **wanted: object) -> Line:
        """The one line with these values, which may be yet to come."""
        (line,) = until(lambda: self.lines(**wanted), f"a line with {wanted}")
        return line

    def trace(self, trace_id: str, names: int) -> list[Span]:
        """The spans of a trace, when so many have come."""
        receiver = self._receiver
        assert receiver is not None

        def spans() -> list[Span]:
            found = [span for span in receiver.spans if span.trace_id.hex() == trace_id]
            return found if len(found) >= names else []

        return until(spans, f"{names} spans of {trace_id}")

    @property
    def text(self) -> str:
        return self._log.read_text()


@pytest.fixture(scope="module")
def traced(triton: EmbeddedTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A gateway that records every trace and logs everything."""
    port = free_port()
    receiver = Receiver(port)
    scene = Scene(
        triton,
        tmp_path_factory.mktemp("telemetry") / "log",
        receiver,
        otlp_endpoint=f"http://127.0.0.1:{port}",
        trace_ratio=1,
        log_level="DEBUG",
    )
    scene.gateway.start()
    yield scene
    scene.gateway.stop()
    receiver.stop()


@pytest.fixture
def quiet(triton: EmbeddedTriton, tmp_path: Path) -> Iterator[Scene]:
    """A gateway without traces."""
    scene = Scene(triton, tmp_path / "log", None)
    scene.gateway.start()
    yield scene
    scene.gateway.stop()


@contextlib.contextmanager
def player() -> Generator[trace.SpanContext]:
    """A span of the client's own, current and recorded."""
    with SENT_SAMPLED.start_as_current_span("play") as span:
        yield span.get_span_context()


def attributes(span: Span) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def seconds(span: Span) -> float:
    return (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9


def named(spans: list[Span], name: str) -> Span:
    (span,) = [span for span in spans if span.name == name]
    return span


def test_a_frames_trace_is_its_clients_and_its_stages_make_it_up(traced: Scene) -> None:
    before_ns = time.time_ns()
    with UpscaleClient(traced.gateway.address) as client, player() as mine:
        answer = client.upscale(FRAME, scale=2, budget_s=30)
    spans = traced.trace(f"{mine.trace_id:032x}", 7)
    assert sorted(span.name for span in spans) == sorted(["upscale.v1.UpscaleService/Upscale", "batch", *STAGES])
    frame = named(spans, "upscale.v1.UpscaleService/Upscale")
    assert frame.parent_span_id.hex() == f"{mine.span_id:016x}"
    assert before_ns <= frame.start_time_unix_nano <= frame.end_time_unix_nano <= time.time_ns()
    at_ns = frame.start_time_unix_nano
    for name in STAGES:
        stage = named(spans, name)
        assert stage.parent_span_id == frame.span_id
        assert stage.start_time_unix_nano == at_ns, "stages follow each other without gaps"
        assert seconds(stage) == pytest.approx(answer.stages_s[name], abs=1e-6)  # pyright: ignore[reportArgumentType]
        at_ns = stage.end_time_unix_nano
    assert at_ns == pytest.approx(frame.end_time_unix_nano, abs=10)
    told = attributes(frame)
    assert told["rpc.system.name"] == "grpc"
    assert told["rpc.method"] == "upscale.v1.UpscaleService/Upscale"
    assert told["rpc.response.status_code"] == "OK"
    assert told["network.peer.address"] == "127.0.0.1"
    assert told["upscale.variant"] == told["upscale.answered_by"] == "runet_x2_clean"
    assert (told["upscale.frame.width"], told["upscale.frame.height"], told["upscale.scale"]) == (160, 90, 2)
    assert (told["upscale.budget_s"], told["upscale.outcome"], told["upscale.batch_frames"]) == (30, "answered", 1)
    batch = named(spans, "batch")
    assert [link.span_id for link in batch.links] == [frame.span_id]
    assert [link.span_id for link in named(spans, "infer").links] == [batch.span_id]
    assert attributes(batch)["upscale.variant"] == "runet_x2_clean"
    assert seconds(batch) <= seconds(named(spans, "infer")) + 1e-3
    assert traced.lines(level="ERROR") == []


def test_the_resource_says_which_gateway_it_was(traced: Scene) -> None:
    with UpscaleClient(traced.gateway.address) as client, player() as mine:
        client.upscale(FRAME)
    traced.trace(f"{mine.trace_id:032x}", 7)
    receiver = traced._receiver  # pyright: ignore[reportPrivateUsage]
    assert receiver is not None
    assert {each["service.name"] for each in receiver.resources} == {"upscale-gateway"}
    assert all(each["service.version"] and each["service.instance.id"] for each in receiver.resources)


def test_a_trace_that_its_client_does_not_record_is_not_recorded(traced: Scene) -> None:
    receiver = traced._receiver  # pyright: ignore[reportPrivateUsage]
    assert receiver is not None
    unwanted, wanted = "11" * 16, "22" * 16
    with grpc.insecure_channel(traced.gateway.address) as channel:
        for trace_id, flags in ((unwanted, "00"), (wanted, "01")):
            with pytest.raises(grpc.RpcError):
                UpscaleServiceStub(channel).Upscale(
                    pb.UpscaleRequest(), metadata=[("traceparent", f"00-{trace_id}-{'3' * 16}-{flags}")]
                )
    traced.trace(wanted, 1)
    assert not [span for span in receiver.spans if span.trace_id.hex() == unwanted]
    assert traced.line(request_id=unwanted)["code"] == "INVALID_ARGUMENT", "its id is told all the same"


def test_every_frame_of_a_session_has_a_trace_of_its_own_unless_its_client_has_one(traced: Scene) -> None:
    receiver = traced._receiver  # pyright: ignore[reportPrivateUsage]
    assert receiver is not None
    receiver.spans.clear()
    with UpscaleClient(traced.gateway.address) as client:
        assert len(list(client.stream([FRAME] * 3))) == 3
        roots = until(
            lambda: found if len(found := [each for each in receiver.spans if not each.parent_span_id]) == 3 else [],
            "three roots",
        )
        assert {span.name for span in roots} == {"UpscaleStream frame"}
        assert len({span.trace_id for span in roots}) == 3
        assert sorted(attributes(span)["upscale.sequence"] for span in roots) == ["0", "1", "2"]
        with player() as mine:
            assert len(list(client.stream([FRAME] * 3))) == 3
    spans = traced.trace(f"{mine.trace_id:032x}", 3 * 6)
    frames = [span for span in spans if span.name == "UpscaleStream frame"]
    assert [span.parent_span_id.hex() for span in frames] == [f"{mine.span_id:016x}"] * 3


def test_a_failed_frame_bears_one_id_at_its_client_in_the_log_and_in_the_trace(traced: Scene) -> None:
    with UpscaleClient(traced.gateway.address) as client:
        with player() as mine, pytest.raises(ModelNotFoundError) as caught:
            client.upscale(FRAME, model="nope")
        (spans,) = [traced.trace(f"{mine.trace_id:032x}", 3)]
        error = caught.value
        line = traced.line(request_id=error.request_id)
        assert error.request_id == line["trace_id"] == f"{mine.trace_id:032x}"
        assert f"request id: {error.request_id}" in error.__notes__
        assert (line["code"], line["reason"], line["method"]) == ("NOT_FOUND", "MODEL_UNKNOWN", "Upscale")
        assert line["message"] == f"frame failed: {error}"
        assert (line["model"], line["failed_in"]) == ("nope", "decode")
        assert line["client"].startswith("ipv4:127.0.0.1:")
        frame = named(spans, "upscale.v1.UpscaleService/Upscale")
        assert sorted(span.name for span in spans) == sorted([frame.name, "receive", "decode"])
        told = attributes(frame)
        assert (told["rpc.response.status_code"], told["error.type"]) == ("NOT_FOUND", "MODEL_UNKNOWN")
        assert frame.status.code == 0, "it is its client's fault"
        assert sum(seconds(span) for span in spans if span is not frame) == pytest.approx(seconds(frame), abs=1e-6)
        assert seconds(frame) == pytest.approx(line["took_s"], abs=0.05)
        # A session's frames: each has the id of its own trace.
        answers = list(client.stream([FRAME, FRAME[:3], FRAME[:4]]))
    first, second, third = (answer.error for answer in answers)
    assert first is None
    assert second is not None
    assert third is not None
    assert second.request_id != third.request_id
    line = traced.line(request_id=second.request_id)
    assert (line["method"], line["sequence"], line["reason"]) == ("UpscaleStream", 1, "FRAME_INVALID")
    assert named(traced.trace(second.request_id, 1), "UpscaleStream frame")


def test_without_traces_failures_have_ids_too(quiet: Scene) -> None:
    errors: list[UpscaleError] = []
    with UpscaleClient(quiet.gateway.address) as client:
        for _ in range(2):
            with pytest.raises(InvalidRequestError) as caught:
                client.upscale(FRAME[:3])
            errors.append(caught.value)
        errors += [answer.error for answer in client.stream([FRAME[:3], FRAME, FRAME[:3]]) if answer.error]
        with pytest.raises(InvalidRequestError) as whole:
            list(client.stream([FRAME], window=99))
    ids = {error.request_id for error in errors}
    assert len(ids) == len(errors) == 4
    for error in errors:
        line = quiet.line(request_id=error.request_id)
        assert line["message"] == f"frame failed: {error}"
        assert "trace_id" not in line
    call = quiet.line(request_id=whole.value.request_id)
    assert call["message"] == f"call failed: {whole.value}"
    assert len(quiet.lines(code="INVALID_ARGUMENT")) == 5, "one line each"
    # Of a client's trace, the id is told even where none are made.
    with UpscaleClient(quiet.gateway.address) as client, player() as mine, pytest.raises(UpscaleError) as caught:
        client.upscale(FRAME[:3])
    assert (
        caught.value.request_id == f"{mine.trace_id:032x}" == quiet.line(trace_id=f"{mine.trace_id:032x}")["trace_id"]
    )


def test_answered_frames_are_no_lines(quiet: Scene) -> None:
    before = len(quiet.lines())
    with UpscaleClient(quiet.gateway.address) as client:
        for _ in range(3):
            client.upscale(FRAME)
        assert len(list(client.stream([FRAME] * 3))) == 3
    assert len(quiet.lines()) == before


def test_a_client_that_leaves_is_a_line(quiet: Scene) -> None:
    large = np.zeros((720, 1280, 3), np.uint8)
    with UpscaleClient(quiet.gateway.address) as client:
        client.upscale(FRAME)
        with client.stream([large] * 8, window=4) as stream:
            next(stream).result()
        line = until(lambda: quiet.lines(reason="CANCELLED"), "the frames it left behind")[0]
    assert (line["level"], line["code"], line["variant"]) == ("INFO", "CANCELLED", "runet_x3_clean")
    assert line["stages_s"]


def test_no_token_and_no_pixel_is_logged(traced: Scene) -> None:
    """At DEBUG, by every way a call can fail."""
    token = "eyJhbGciOiJIUzI1NiJ9.c2VjcmV0LXN1YmplY3Q.c2lnbmF0dXJl"
    metadata: Any = [("authorization", f"Bearer {token}"), ("x-api-key", token), ("secret-bin", token.encode())]
    bad = pb.Frame(width=160, height=90, encoding=pb.ENCODING_RGB24, data=b"PIXELPIXEL" * 10)
    with grpc.insecure_channel(traced.gateway.address) as channel:
        stub: Any = UpscaleServiceStub(channel)
        for request in (pb.UpscaleRequest(frame=bad), pb.UpscaleRequest()):
            with pytest.raises(grpc.RpcError):
                stub.Upscale(request, metadata=metadata)
        requests = [pb.UpscaleStreamRequest(sequence=4711, frame=bad)]
        assert [answer.error.code for answer in stub.UpscaleStream(iter(requests), metadata=metadata)] == [3]
        with pytest.raises(grpc.RpcError):
            list(stub.ShareRegion(pb.ShareRegionRequest(name="nope", proof=b"PROOFPROOF"), metadata=metadata))
        with pytest.raises(grpc.RpcError):
            channel.unary_unary("/upscale.v1.UpscaleService/Nonsense")(b"", metadata=metadata)
    traced.line(sequence=4711)
    traced.line(method="ShareRegion")
    for secret in (token, "Bearer", "PIXEL", "PROOF"):
        assert secret not in traced.text


def test_a_client_is_named_and_its_key_is_not(triton: EmbeddedTriton, tmp_path: Path) -> None:
    key, wrong = "right-" + "k" * 40, "wrong-" + "k" * 40
    keys = tmp_path / "keys"
    keys.write_text(f"player-7 sha256:{hashlib.sha256(key.encode()).hexdigest()}\n")
    scene = Scene(triton, tmp_path / "log", None, log_level="DEBUG", auth_keys=keys)
    scene.gateway.start()
    with UpscaleClient(scene.gateway.address, token=key) as client, pytest.raises(UpscaleError) as frame:
        client.upscale(FRAME[:3])
    with UpscaleClient(scene.gateway.address, token=wrong) as client, pytest.raises(UpscaleError) as call:
        client.upscale(FRAME)
    assert scene.line(request_id=frame.value.request_id)["client"] == "player-7"
    line = scene.line(request_id=call.value.request_id)
    assert (line["code"], line["method"], line["level"]) == ("UNAUTHENTICATED", "Upscale", "WARNING")
    assert line["client"].startswith("ipv4:127.0.0.1:")
    scene.gateway.stop()
    assert key not in scene.text
    assert wrong not in scene.text


def test_many_failures_are_a_few_lines_and_their_number(triton: EmbeddedTriton, tmp_path: Path) -> None:
    scene = Scene(triton, tmp_path / "log", None, log_failures_per_s=3)
    scene.gateway.start()
    sent = 400
    with UpscaleClient(scene.gateway.address) as client:
        failed = [answer.error for answer in client.stream([FRAME[:3]] * sent, window=4) if answer.error]
    assert len(failed) == sent

    def told() -> bool:
        lines = scene.lines(reason="FRAME_INVALID")
        return sum(line.get("left_out", 1) for line in lines) == sent

    until(told, "every failure is logged or counted")
    lines = scene.lines(reason="FRAME_INVALID")
    assert any("left_out" in line for line in lines)
    assert len(lines) < sent / 4
    scene.gateway.stop()


def test_a_receiver_that_is_away_is_told_once_and_harms_nothing(triton: EmbeddedTriton, tmp_path: Path) -> None:
    port = free_port()
    scene = Scene(triton, tmp_path / "log", None, otlp_endpoint=f"http://127.0.0.1:{port}", trace_ratio=1)
    scene.gateway.start()
    away, back = "traces cannot be sent", "traces are sent to"

    def told(words: str) -> list[Line]:
        return [line for line in scene.lines() if words in line["message"]]

    answered = 0
    done = threading.Event()
    with UpscaleClient(scene.gateway.address) as client:

        def play() -> None:
            nonlocal answered
            while not done.is_set():
                client.upscale(FRAME)
                answered += 1
                time.sleep(0.02)

        playing = threading.Thread(target=play)
        playing.start()
        until(lambda: told(away), "the receiver is missed")
        so_far = answered
        time.sleep(4)  # longer than an attempt to export takes: there is another, which fails as well
        assert answered > so_far
        receiver = Receiver(port)
        until(lambda: told(back), "the receiver is found")
        until(lambda: receiver.spans, "spans")
        done.set()
        playing.join()
    assert len(told(away)) == 1
    assert scene.lines(level="ERROR") == []
    receiver.stop()
    began = time.monotonic()
    scene.gateway.terminate()
    assert scene.gateway.wait() == 0
    assert time.monotonic() - began < 12
    assert scene.lines()[-1]["message"].startswith("stopped after")


def test_workers_and_their_supervisor_write_json_too(triton: EmbeddedTriton, tmp_path: Path) -> None:
    scene = Scene(triton, tmp_path / "log", None, workers=2)
    scene.gateway.start()
    until(lambda: len({line["process"] for line in scene.lines()}) == 3, "lines of all three processes")
    victim = min(workers(scene.gateway))
    os.kill(victim, signal.SIGKILL)
    (line,) = until(lambda: scene.lines(level="ERROR"), "the supervisor's line")
    assert f"(process {victim}) ended" in line["message"]
    assert line["process"] == scene.gateway.pid
    scene.gateway.stop()
    assert all({"time", "level", "logger", "message", "process"} <= line.keys() for line in scene.lines())


def test_a_port_that_is_taken_is_one_line_of_json() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "service", "--host", "127.0.0.1", "--log-format", "json"]
        done = subprocess.run(
            [*command, "--port", str(port), "--metrics-port", str(free_port())],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 2
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert lines[-1]["level"] == "CRITICAL"
    assert f"cannot listen on 127.0.0.1:{port}" in lines[-1]["message"]
