"""Spans, as they are handed to the exporter."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from service.errors import BackendUnavailableError
from service.timing import StageClock
from service.tracing import Tracing


class Scene:
    """Traces that are kept here."""

    def __init__(self, exporter: InMemorySpanExporter, ratio: float) -> None:
        self.tracing = Tracing("http://127.0.0.1:1", ratio)
        self._exporter = exporter

    def spans(self) -> dict[str, ReadableSpan]:
        self.tracing.close()
        return {span.name: span for span in self._exporter.get_finished_spans()}


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    monkeypatch.setattr("service.tracing.OTLPSpanExporter", lambda *_, **__: exporter)
    yield exporter
    exporter.clear()


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def test_a_batch_that_fails_is_an_error_linked_to_its_frames(exporter: InMemorySpanExporter) -> None:
    scene = Scene(exporter, 1)
    frames = [scene.tracing.frame("UpscaleStream", StageClock(time.perf_counter())) for _ in range(2)]
    with (
        pytest.raises(BackendUnavailableError),
        scene.tracing.batch("triton:8001", "runet_x2_clean", [frames[0], None, frames[1]]),
    ):
        raise BackendUnavailableError("gone")
    batch = scene.spans()["batch"]
    assert batch.status.status_code is StatusCode.ERROR
    assert batch.attributes is not None
    assert (batch.attributes["upscale.batch_frames"], batch.attributes["server.address"]) == (3, "triton:8001")
    assert batch.attributes["error.type"] == "BackendUnavailableError"
    assert [link.context for link in batch.links] == [frame.span.get_span_context() for frame in frames]
    assert [frame.batch for frame in frames] == [batch.context] * 2


def test_the_stage_in_which_a_frame_failed_has_the_time_until_then(exporter: InMemorySpanExporter) -> None:
    scene = Scene(exporter, 1)
    clock = StageClock(time.perf_counter() - 10)
    frame = scene.tracing.frame("Upscale", clock)
    for stage in ("receive", "decode", "queue"):
        clock.lap(stage)
    frame.failed(clock, {}, code="UNAVAILABLE", reason="BACKEND_UNAVAILABLE", message="gone")
    spans = scene.spans()
    whole = spans.pop("upscale.v1.UpscaleService/Upscale")
    assert spans.keys() == {"receive", "decode", "queue", "infer"}
    assert whole.status.status_code is StatusCode.ERROR
    assert seconds(spans["receive"]) == pytest.approx(clock.seconds["receive"], abs=1e-6)
    assert sum(map(seconds, spans.values())) == pytest.approx(seconds(whole), abs=1e-6)
    assert spans["infer"].end_time == pytest.approx(whole.end_time, abs=10)


def test_what_is_not_recorded_has_an_id_and_no_span(exporter: InMemorySpanExporter) -> None:
    scene = Scene(exporter, 0)
    clock = StageClock(time.perf_counter())
    frame = scene.tracing.frame("Upscale", clock)
    assert len(frame.trace_id) == 32
    assert int(frame.trace_id, 16)
    assert not frame.recorded
    with scene.tracing.batch("triton:8001", "runet_x2_clean", [frame]):
        pass
    frame.answered(clock, {})
    assert frame.batch is None
    assert scene.spans() == {}
