"""Triton: as the gateways see it, as it counts itself, and the device below it."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana import panels
from deploy.grafana.panels import HERE, TRITON, Query, over_time, row

_OF = TRITON + ',model=~"$model"'
_PARTS = {
    "queue": "nv_inference_queue_duration_us",
    "input": "nv_inference_compute_input_duration_us",
    "network": "nv_inference_compute_infer_duration_us",
    "output": "nv_inference_compute_output_duration_us",
}


def build() -> dashboard.Dashboard:
    """The dashboard."""
    board = panels.board(
        "triton",
        "Triton",
        "Is Triton there, what does it do, and where does its time go? A model of Triton's is a variant of the "
        "gateway's.",
        ["job", "instance", "triton_job", "triton", "model"],
    )
    requests = panels.per_second("nv_inference_request_success", _OF)
    return (
        board.with_row(row("As the gateways see it"))
        .with_panel(
            over_time(
                "Reachable",
                "1 for every Triton endpoint that all gateways reach.",
                Query(f"min by (endpoint) (upscale_triton_up{{{HERE}}})", "{{endpoint}}"),
                unit="short",
                thresholds=((None, panels.RED), (1, panels.GREEN)),
                most=1,
                width=8,
                alert="UpscaleTritonDown",
            )
        )
        .with_panel(
            over_time(
                "Left alone",
                "1 for every endpoint that a gateway leaves alone because its batches failed again and again.",
                Query(f"max by (endpoint) (upscale_breaker_open{{{HERE}}})", "{{endpoint}}"),
                unit="short",
                thresholds=((None, panels.GREEN), (1, panels.RED)),
                most=1,
                width=8,
                alert="UpscaleTritonLeftAlone",
            )
        )
        .with_panel(
            over_time(
                "Batches that failed",
                "Batches a second that the endpoint did not answer.",
                Query(panels.per_second("upscale_batch_failures_total", HERE, "endpoint"), "{{endpoint}}"),
                unit="suffix: /s",
                width=8,
                alert="UpscaleTritonLeftAlone",
            )
        )
        .with_row(row("Requests (a request of ours is a batch)"))
        .with_panel(
            over_time(
                "Answered",
                "Requests a second that Triton answered, by model.",
                Query(panels.per_second("nv_inference_request_success", _OF, "model"), "{{model}}"),
                unit="suffix: /s",
                width=8,
            )
        )
        .with_panel(
            over_time(
                "Failed",
                "Requests a second that Triton failed, by model and its own reason.",
                Query(panels.per_second("nv_inference_request_failure", _OF, "model, reason"), "{{model}} {{reason}}"),
                unit="suffix: /s",
                width=8,
                alert="UpscaleFramesFail",
            )
        )
        .with_panel(
            over_time(
                "Frames per execution",
                "Mean number of frames that Triton ran at once; it should be what the gateway batched.",
                Query(
                    f"{panels.per_second('nv_inference_count', _OF, 'model')} / "
                    f"{panels.per_second('nv_inference_exec_count', _OF, 'model')}",
                    "{{model}}",
                ),
                unit="short",
                decimals=1,
                width=8,
            )
        )
        .with_panel(
            over_time(
                "Where Triton's time goes",
                "Mean time of a request, part on part; what the gateway's infer has beyond it is the way there and "
                "back. The lines are a 60th and a 30th of a second.",
                *(
                    Query(f"{panels.per_second(metric, _OF)} / {requests} / 1e6", part)
                    for part, metric in _PARTS.items()
                ),
                unit="s",
                stacked=True,
                thresholds=panels.FRAME_TIME,
                width=8,
            )
        )
        .with_panel(
            over_time(
                "Time of a request",
                "Mean time of a request in Triton, by model.",
                Query(
                    f"{panels.per_second('nv_inference_request_duration_us', _OF, 'model')} / "
                    f"{panels.per_second('nv_inference_request_success', _OF, 'model')} / 1e6",
                    "{{model}}",
                ),
                unit="s",
                thresholds=panels.FRAME_TIME,
                width=8,
            )
        )
        .with_panel(
            over_time(
                "Pending",
                "Requests that wait in Triton for an instance; the gateways send no more than there are, so that there "
                "should be hardly any.",
                Query(f"sum by (model) (nv_inference_pending_request_count{{{_OF}}})", "{{model}}"),
                unit="short",
                width=8,
            )
        )
        .with_row(row("Host"))
        .with_panel(
            over_time(
                "CPU",
                "Use of all cores of Triton's host.",
                Query(f"nv_cpu_utilization{{{TRITON}}}", "{{instance}}"),
                unit="percentunit",
                most=1,
                thresholds=((None, panels.GREEN), (0.9, panels.RED)),
                width=8,
            )
        )
        .with_panel(
            over_time(
                "Memory",
                "Memory of Triton's host, used and in all.",
                Query(f"nv_cpu_memory_used_bytes{{{TRITON}}}", "used {{instance}}"),
                Query(f"nv_cpu_memory_total_bytes{{{TRITON}}}", "in all {{instance}}"),
                unit="bytes",
                width=8,
            )
        )
        .with_panel(
            over_time(
                "Pinned memory",
                "Triton's pool of pinned memory, used and in all; frames that go as bytes need it, shared ones do not.",
                Query(f"nv_pinned_memory_pool_used_bytes{{{TRITON}}}", "used {{instance}}"),
                Query(f"nv_pinned_memory_pool_total_bytes{{{TRITON}}}", "in all {{instance}}"),
                unit="bytes",
                width=8,
            )
        )
        .with_row(row(panels.GPU_ROW))
        .with_panel(
            over_time(
                "GPU",
                "Share of the time in which the GPU had something to do.",
                Query(f"nv_gpu_utilization{{{TRITON}}}", "{{instance}} {{gpu_uuid}}"),
                unit="percentunit",
                most=1,
                thresholds=((None, panels.GREEN), (0.95, panels.RED)),
                width=8,
            )
        )
        .with_panel(
            over_time(
                "GPU memory",
                "Share of the GPU's memory in use.",
                Query(
                    f"nv_gpu_memory_used_bytes{{{TRITON}}} / nv_gpu_memory_total_bytes{{{TRITON}}}",
                    "{{instance}} {{gpu_uuid}}",
                ),
                unit="percentunit",
                most=1,
                thresholds=((None, panels.GREEN), (0.95, panels.RED)),
                width=8,
            )
        )
        .with_panel(
            over_time(
                "GPU power",
                "What the GPU draws, and the most it may; at the limit its clock goes down, and networks take longer.",
                Query(f"nv_gpu_power_usage{{{TRITON}}}", "{{instance}} {{gpu_uuid}}"),
                Query(f"nv_gpu_power_limit{{{TRITON}}}", "limit {{instance}} {{gpu_uuid}}"),
                unit="watt",
                width=8,
            )
        )
    )
