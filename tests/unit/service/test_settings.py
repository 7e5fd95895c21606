"""Settings: variables, flags, limits, misspellings."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from models.weights import DEFAULT_PROFILE
from service.settings import Settings, env_name, unknown_variables


def test_a_variable_sets_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSCALE_MAX_INFLIGHT_FRAMES", "3")
    assert Settings().max_inflight_frames == 3
    assert env_name("max_inflight_frames") == "UPSCALE_MAX_INFLIGHT_FRAMES"


def test_requests_default_to_the_profile_that_commands_do() -> None:
    assert Settings().default_profile == DEFAULT_PROFILE


def test_impossible_limits_are_refused() -> None:
    with pytest.raises(ValidationError, match="holds not one frame"):
        Settings(shared_memory_bytes=1000)


@pytest.mark.parametrize(
    ("triton_url", "named"),
    [
        ("", "''"),
        ("triton-a:8001,", "''"),
        ("triton-a", "'triton-a'"),
        ("triton-a:", "'triton-a:'"),
        ("triton-a:8001,triton-b:0", "'triton-b:0'"),
        ("triton-a:65536", "'triton-a:65536'"),
        ("http://triton-a:8001", "'http://triton-a:8001'"),
        ("::1:8001", "'::1:8001'"),
        ("dns:8001", "'dns:8001'"),
        ("dns:triton", "'dns:triton'"),
        ("file:endpoints", "'file:endpoints'"),
        ("file:", "'file:'"),
    ],
)
def test_what_is_no_endpoint_is_refused_by_name(triton_url: str, named: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(triton_url=triton_url)
    message = caught.value.errors()[0]["msg"]
    assert message.startswith(f"Value error, {named} ")
    assert message.endswith(
        "accepted is a comma-separated list of host:port, dns:host:port and file:/path, with ports from 1 to 65535"
    )


def test_misspelt_variables_are_noticed() -> None:
    names = ["UPSCALE_PORT", "upscale_port", "UPSCALE_PROT", "PATH"]
    assert unknown_variables(names) == ["UPSCALE_PROT"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "99999"], "service: port: Input should be less than or equal to 65535 (got '99999')"),
        (["--triton-shared-memory", "maybe"], "service: triton_shared_memory: Input should be 'auto', 'on' or 'off'"),
    ],
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    done = subprocess.run([sys.executable, "-m", "service", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_gateway_and_client_need_no_torch() -> None:
    program = (
        "import sys, service.app, upscale_client.cli; "
        "print([name for name in ('torch', 'onnx', 'models', 'opentelemetry') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
