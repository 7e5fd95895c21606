"""The real gateway behind TLS, tokens and limits, and what it does with those who are slow or silent."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import jwt
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray
from PIL import Image

from deploy.embedded import EmbeddedTriton
from deploy.local import GatewayProcess
from tests.authority import Authority
from tests.conftest import StartGateway, metric, until_nothing_is_held
from upscale_client import AsyncUpscaleClient, OverloadedError, Tls, UnauthenticatedError, UpscaleClient, UpscaleError
from upscale_client.cli import main as upscale4k
from upscale_client.v1 import upscale_pb2 as pb
from upscale_client.v1.upscale_pb2_grpc import UpscaleServiceStub

Pixels = NDArray[np.uint8]
FRAME = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "our-ca")


def get(gateway: GatewayProcess, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{gateway.metrics_port}{path}") as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def states(gateway: GatewayProcess) -> str:
    """The gateway's metrics that say what it takes for there."""
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.metrics_port}/metrics") as answer:
        lines: list[str] = answer.read().decode().splitlines()
    return "\n".join(line for line in lines if line.startswith(("upscale_ready", "upscale_triton", "upscale_workers")))


def test_by_tls_frames_are_answered_and_without_it_nothing_is(
    triton: EmbeddedTriton, start_gateway: StartGateway, authority: Authority, lr_720p: Pixels
) -> None:
    own = authority.issue("localhost", "own")
    gateway = start_gateway(triton.url, tls_certificate=own.certificate, tls_key=own.key)
    with UpscaleClient(gateway.address, tls=Tls(authority.certificate)) as client:
        assert client.upscale(lr_720p).width == 3840
    with UpscaleClient(gateway.address, timeout_s=2) as client, pytest.raises(UpscaleError):
        client.upscale(FRAME)
    with UpscaleClient(gateway.address, timeout_s=2, tls=True) as client, pytest.raises(UpscaleError):
        client.upscale(FRAME)  # no public authority has signed it
    gateway.stop()


def test_a_new_certificate_is_served_without_a_restart(
    triton: EmbeddedTriton, start_gateway: StartGateway, authority: Authority, tmp_path: Path
) -> None:
    own = authority.issue("localhost", "own")
    gateway = start_gateway(triton.url, tls_certificate=own.certificate, tls_key=own.key)
    with UpscaleClient(gateway.address, tls=Tls(authority.certificate)) as old:
        old.upscale(FRAME)
        (tmp_path / "own.crt").write_text("half a certificate")
        time.sleep(1.2)
        with UpscaleClient(gateway.address, tls=Tls(authority.certificate)) as client:
            client.upscale(FRAME)  # the old one still holds
        ends = metric(gateway, "upscale_certificate_end_timestamp_seconds")
        assert ends > time.time()
        other = Authority(tmp_path, "new-ca")
        other.issue("localhost", "own")
        deadline = time.monotonic() + 20
        while True:
            try:
                with UpscaleClient(gateway.address, timeout_s=2, tls=Tls(other.certificate)) as client:
                    client.upscale(FRAME)
                break
            except UpscaleError:
                assert time.monotonic() < deadline
        while metric(gateway, "upscale_certificate_end_timestamp_seconds") <= ends:
            assert time.monotonic() < deadline, "the old one's end is still told"
            time.sleep(0.1)
        old.upscale(FRAME)  # a connection that is open keeps what it began with
    gateway.stop()


def test_by_mtls_a_client_is_known_by_its_certificate(
    triton: EmbeddedTriton, start_gateway: StartGateway, authority: Authority, tmp_path: Path
) -> None:
    own, studio = authority.issue("localhost", "own"), authority.issue("studio", "studio")
    stranger = Authority(tmp_path, "another-ca").issue("studio", "stranger")
    gateway = start_gateway(
        triton.url,
        tls_certificate=own.certificate,
        tls_key=own.key,
        tls_client_ca=authority.certificate,
        client_frames_per_s=0.001,
        client_burst_frames=2,
    )
    with UpscaleClient(gateway.address, tls=Tls(authority.certificate, studio.certificate, studio.key)) as client:
        client.upscale(FRAME)
        client.upscale(FRAME)
        with pytest.raises(OverloadedError, match=r"client 'studio' sends more than 0.001 frames a second") as caught:
            client.upscale(FRAME)
        assert caught.value.reason == "CLIENT_LIMIT"
        assert caught.value.retry_after_s
    for tls in (Tls(authority.certificate), Tls(authority.certificate, stranger.certificate, stranger.key)):
        with UpscaleClient(gateway.address, timeout_s=2, tls=tls) as client, pytest.raises(UpscaleError):
            client.list_models()
    assert metric(gateway, 'upscale_shed_total{reason="client_limit"') == 1
    gateway.stop()


@pytest.fixture
def key_file(tmp_path: Path) -> tuple[Path, str]:
    """A file with one client's key, and the key."""
    made = subprocess.run(
        [sys.executable, "-m", "service.access.keys", "studio"], check=True, capture_output=True, text=True
    )
    path = tmp_path / "keys"
    path.write_text(made.stdout)
    return path, made.stderr.split()[-1]


async def test_only_who_has_a_key_is_answered(
    triton: EmbeddedTriton, start_gateway: StartGateway, key_file: tuple[Path, str], tmp_path: Path
) -> None:
    path, key = key_file
    gateway = start_gateway(triton.url, auth_keys=path)  # its health, which start() waits for, is open to all
    for token in ("", "wrong"):
        with UpscaleClient(gateway.address, token=token) as client:
            with pytest.raises(UnauthenticatedError) as caught:
                client.upscale(FRAME)
            assert caught.value.reason == "UNAUTHENTICATED"
            with pytest.raises(UnauthenticatedError):
                next(client.stream([FRAME]))
            with pytest.raises(UnauthenticatedError):
                client.list_models()
            with pytest.raises(UnauthenticatedError):
                client.shared_frames(160, 90, scale=2)
    with UpscaleClient(gateway.address, token=lambda: key) as client:
        assert client.upscale(FRAME).width == 480
        assert [answer.result().width for answer in client.stream([FRAME])] == [480]
        with client.shared_frames(160, 90, scale=2) as shared:
            shared.upscale()
    async with AsyncUpscaleClient(gateway.address, token=key) as client:
        assert (await client.upscale(FRAME)).width == 480
    log = next(iter(tmp_path.parent.glob("gateways*/gateway-*.log")), None)
    assert log is not None
    assert all(key not in each.read_text() for each in tmp_path.parent.glob("gateways*/gateway-*.log"))
    assert metric(gateway, 'grpc_server_handled_total{grpc_code="UNAUTHENTICATED"') == 8
    gateway.stop()


def test_a_token_of_the_identity_provider_opens_until_its_key_is_withdrawn(
    triton: EmbeddedTriton, start_gateway: StartGateway, tmp_path: Path
) -> None:
    signer = ec.generate_private_key(ec.SECP256R1())

    def publish(key: ec.EllipticCurvePrivateKey) -> None:
        new = tmp_path / "jwks.new"
        jwk = jwt.get_algorithm_by_name("ES256").to_jwk(key.public_key(), as_dict=True)
        new.write_text(json.dumps({"keys": [{**jwk, "kid": "2026", "alg": "ES256"}]}))
        new.replace(tmp_path / "jwks.json")

    publish(signer)
    provider = {"auth_jwt_issuer": "https://id.example", "auth_jwt_audience": "upscale"}
    gateway = start_gateway(triton.url, auth_jwt_keys=tmp_path / "jwks.json", **provider)
    claims = {"sub": "studio", "iss": "https://id.example", "aud": "upscale", "exp": int(time.time()) + 600}
    token = jwt.encode(claims, signer, "ES256", headers={"kid": "2026"})
    expired = jwt.encode({**claims, "exp": 1}, signer, "ES256", headers={"kid": "2026"})
    with UpscaleClient(gateway.address, token=expired) as client, pytest.raises(UnauthenticatedError, match="expired"):
        client.upscale(FRAME)
    with UpscaleClient(gateway.address, token=token) as client:
        assert client.upscale(FRAME).width == 480
        publish(ec.generate_private_key(ec.SECP256R1()))
        deadline = time.monotonic() + 20
        refused = ""
        while not refused and time.monotonic() < deadline:
            try:
                client.upscale(FRAME)
            except UnauthenticatedError as error:
                refused = str(error)
    assert refused == "the token's signature is wrong"
    gateway.stop()


def test_without_a_token_a_frame_is_not_even_received(
    triton: EmbeddedTriton, start_gateway: StartGateway, key_file: tuple[Path, str]
) -> None:
    gateway = start_gateway(triton.url, auth_keys=key_file[0])
    with grpc.insecure_channel(gateway.address) as channel:
        call = channel.stream_unary("/upscale.v1.UpscaleService/Upscale")

        def never() -> Iterator[bytes]:
            time.sleep(60)
            yield b""

        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            call(never(), timeout=30)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert time.monotonic() - began < 20
    gateway.stop()


def test_the_command_line_shows_a_token(
    triton: EmbeddedTriton,
    start_gateway: StartGateway,
    key_file: tuple[Path, str],
    authority: Authority,
    tmp_path: Path,
    hr: Pixels,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, key = key_file
    own = authority.issue("localhost", "own")
    gateway = start_gateway(triton.url, auth_keys=path, tls_certificate=own.certificate, tls_key=own.key)
    Image.fromarray(hr[:180, :320]).save(tmp_path / "small.png")
    command = [
        "upscale4k",
        str(tmp_path / "small.png"),
        "--address",
        gateway.address,
        "--ca",
        str(authority.certificate),
    ]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit, match="1"):
        upscale4k()
    monkeypatch.setenv("UPSCALE4K_TOKEN", key)
    with pytest.raises(SystemExit, match="0"):
        upscale4k()
    assert Image.open(tmp_path / "small_4k.png").size == (960, 540)
    gateway.stop()


def test_a_token_is_not_sent_in_clear_text_to_another_host() -> None:
    with pytest.raises(ValueError, match=r"a token would go to gateway.example:50051 in clear text: use tls"):
        UpscaleClient("gateway.example:50051", token="secret")


def test_one_client_has_its_sessions_and_no_more(triton: EmbeddedTriton, start_gateway: StartGateway) -> None:
    gateway = start_gateway(triton.url, client_sessions=1, session_idle_s=1)

    def options() -> Iterator[pb.UpscaleStreamRequest]:
        yield pb.UpscaleStreamRequest(options=pb.StreamOptions())
        time.sleep(30)

    with grpc.insecure_channel(gateway.address) as one, grpc.insecure_channel(gateway.address) as two:
        first = UpscaleServiceStub(one).UpscaleStream(options())
        deadline = time.monotonic() + 10
        while metric(gateway, "upscale_sessions") < 1:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with pytest.raises(grpc.RpcError, match="has 1 sessions open, the most allowed for one"):
            next(UpscaleServiceStub(two).UpscaleStream(iter([])))
        with pytest.raises(grpc.RpcError, match="nothing was sent for 1 s"):
            next(first)
    until_nothing_is_held(gateway)
    gateway.stop()


def test_a_call_whose_message_does_not_come_is_ended(triton: EmbeddedTriton, start_gateway: StartGateway) -> None:
    gateway = start_gateway(triton.url, receive_timeout_s=0.5)
    with grpc.insecure_channel(gateway.address) as channel:

        def never() -> Iterator[bytes]:
            time.sleep(30)
            yield b""

        call = channel.stream_unary("/upscale.v1.UpscaleService/Upscale")
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            call(never(), timeout=20)
        assert time.monotonic() - began < 15
        assert "the message did not come within 0.5 s" in str(caught.value)
        # What has come in time is not cancelled later.
        with UpscaleClient(gateway.address) as client:
            list(client.stream([FRAME, FRAME]))
            assert client.upscale(FRAME).width == 480
    until_nothing_is_held(gateway)
    gateway.stop()


def test_large_metadata_are_refused(gateway: GatewayProcess) -> None:
    with grpc.insecure_channel(gateway.address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            UpscaleServiceStub(channel).ListModels(pb.ListModelsRequest(), metadata=(("x", "y" * 20_000),))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        UpscaleServiceStub(channel).ListModels(pb.ListModelsRequest())


@pytest.mark.parametrize("workers", [1, 2])
def test_the_ops_port_tells_whether_it_lives_and_is_ready(
    start_gateway: StartGateway, repository: Path, workers: int
) -> None:
    server = EmbeddedTriton(repository)
    server.start()
    gateway = start_gateway(server.url, workers=workers)
    assert [get(gateway, path) for path in ("/livez", "/readyz", "/metrics", "/")] == [200, 200, 200, 404]
    server.stop()
    deadline = time.monotonic() + 20
    while (code := get(gateway, "/readyz")) != 503:
        assert time.monotonic() < deadline, f"/readyz still says {code}:\n{states(gateway)}"
        time.sleep(0.1)
    assert get(gateway, "/livez") == 200
    with grpc.insecure_channel(gateway.address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        status = health.Check(health_pb2.HealthCheckRequest()).status
    assert status == health_pb2.HealthCheckResponse.NOT_SERVING
    gateway.stop()


@pytest.mark.parametrize("workers", [1, 2])
def test_files_that_make_no_sense_are_one_line(tmp_path: Path, workers: int, authority: Authority) -> None:
    own, other = authority.issue("localhost", "own"), authority.issue("localhost", "other")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for flags, message in (
        (["--tls-certificate", own.certificate, "--tls-key", tmp_path / "nowhere"], "No such file"),
        (["--tls-certificate", own.certificate, "--tls-key", other.key], "the key is not that of the certificate"),
        (["--tls-certificate", own.key, "--tls-key", own.key], "the certificate is no certificate in PEM"),
        (["--auth-keys", own.key], "line 1 is not"),
    ):
        command = [sys.executable, "-m", "service", "--port", port, "--metrics-port", "0", "--workers", workers, *flags]
        ended = subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 2
        last = ended.stderr.strip().splitlines()[-1]
        assert last.startswith("service: ")
        assert message in last
        assert "Traceback" not in ended.stderr
