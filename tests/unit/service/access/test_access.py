"""Who is let in, what a file that changes does, and what one client may have."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from service.access.files import ReloadedFiles
from service.access.gate import Client, Gate, client_of
from service.access.keys import StaticKeys
from service.access.limits import ClientLimits
from service.access.tokens import TokenVerifier
from service.errors import ClientLimitError, UnauthenticatedError
from service.settings import Settings

ISSUER, AUDIENCE = "https://id.example", "upscale"


def public_pem(key: Any) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private_pem(key: Any) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def claims(**changes: object) -> dict[str, object]:
    now = datetime.datetime.now(datetime.UTC)
    whole = {"sub": "studio", "iss": ISSUER, "aud": AUDIENCE, "exp": now + datetime.timedelta(hours=1), **changes}
    return {name: value for name, value in whole.items() if value is not None}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock that says when a file is looked at again."""
    offset = 0.0
    real = time.monotonic

    def move(seconds: float) -> None:
        nonlocal offset
        offset += seconds

    monkeypatch.setattr("service.access.files.time.monotonic", lambda: real() + offset)
    return move


def parse_number(data: bytes) -> int:
    return int(data)


def test_a_file_is_read_again_when_it_changes(tmp_path: Path, clock: Callable[[float], None]) -> None:
    path = tmp_path / "number"
    path.write_text("1")
    files = ReloadedFiles([path], parse_number)
    path.write_text("22")
    assert files.value == 1  # not yet: it was looked at a moment ago
    clock(2)
    assert files.value == 22


@pytest.mark.parametrize("bad", ["none", None])
def test_what_was_read_holds_while_a_file_makes_no_sense(
    tmp_path: Path, clock: Callable[[float], None], caplog: pytest.LogCaptureFixture, bad: str | None
) -> None:
    path = tmp_path / "number"
    path.write_text("1")
    files = ReloadedFiles([path], parse_number)
    if bad is None:
        path.unlink()
    else:
        path.write_text(bad)
    for _ in range(3):
        clock(2)
        assert files.value == 1
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1  # once, not for every look
    path.write_text("1")
    path.write_text("3")
    clock(2)
    assert files.value == 3


def test_a_file_that_never_made_sense_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        ReloadedFiles([tmp_path / "nowhere"], parse_number)


def make_key(client: str) -> tuple[str, str]:
    """The key and the line of the file."""
    command = [sys.executable, "-m", "service.access.keys", client]
    made = subprocess.run(command, check=True, capture_output=True, text=True)
    return made.stderr.strip().rpartition(" ")[2], made.stdout


def test_a_key_that_the_command_makes_opens_and_no_other(tmp_path: Path) -> None:
    key, line = make_key("studio")
    path = tmp_path / "keys"
    path.write_text(f"# who plays\n{line}\n")
    keys = StaticKeys(path)
    assert keys.client(key) == "studio"
    assert keys.client(key[:-1]) is None
    assert keys.client("") is None
    assert key not in path.read_text()


def test_a_client_cannot_be_called_anything() -> None:
    command = [sys.executable, "-m", "service.access.keys", "two words"]
    made = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (made.returncode, made.stdout) == (2, "")
    assert "usage:" in made.stderr


def test_a_bad_line_of_keys_is_named_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("\nstudio a-key-in-clear\n")
    with pytest.raises(ValueError, match="line 2 is not") as caught:
        StaticKeys(path)
    assert "a-key-in-clear" not in str(caught.value)


SIGNERS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


@pytest.mark.parametrize("algorithm", SIGNERS)
@pytest.mark.parametrize("form", ["pem", "jwks"])
def test_a_token_tells_whose_it_is(tmp_path: Path, algorithm: str, form: str) -> None:
    signer = SIGNERS[algorithm]
    path = tmp_path / "keys"
    if form == "pem":
        path.write_bytes(public_pem(signer))
    else:
        key = jwt.get_algorithm_by_name(algorithm).to_jwk(signer.public_key(), as_dict=True)
        path.write_text(json.dumps({"keys": [{**key, "kid": "now", "alg": algorithm}]}))
    verifier = TokenVerifier(path, ISSUER, AUDIENCE)
    token = jwt.encode(claims(), signer, algorithm, headers={"kid": "now"})
    assert verifier.client(token) == "studio"
    assert verifier.client(token) == "studio"  # now from what is remembered


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exp": 1}, "has expired"),
        ({"exp": None}, "has no 'exp'"),
        ({"sub": None}, "has no 'sub'"),
        ({"aud": "another"}, "is not for 'upscale'"),
        ({"aud": None}, "has no 'aud'"),
        ({"iss": "https://evil.example"}, "is not from"),
        ({"exp": "9999999999"}, "'exp' no number"),
        ({"sub": ""}, "'sub' is no name"),
        ({"sub": "studio\ud800"}, "'sub' is no name"),
    ],
)
def test_a_token_that_is_not_for_us_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = tmp_path / "keys"
    path.write_bytes(public_pem(SIGNERS["ES256"]))
    verifier = TokenVerifier(path, ISSUER, AUDIENCE)
    with pytest.raises(ValueError, match=message):
        verifier.client(jwt.encode(claims(**changes), SIGNERS["ES256"], "ES256"))


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param(b'{"keys":' + b"[" * 100_000, id="nested"),
        pytest.param(b'{"keys":[{"kty":"OKP","crv":"Ed25519","x":"%s","kid":[]}]}' % (b"A" * 43), id="a list as kid"),
        pytest.param(
            b"-----BEGIN PUBLIC KEY-----\nMCowBQYDKgMEAyEA" + b"A" * 43 + b"=\n-----END PUBLIC KEY-----",
            id="an unknown kind of key",
        ),
    ],
)
def test_whatever_is_wrong_with_a_file_of_public_keys_it_makes_no_sense(tmp_path: Path, keys: bytes) -> None:
    path = tmp_path / "keys"
    path.write_bytes(keys)
    with pytest.raises(ValueError, match="it is n"):
        TokenVerifier(path, ISSUER, AUDIENCE)


def test_forged_tokens_are_refused(tmp_path: Path) -> None:
    signer = SIGNERS["RS256"]
    path = tmp_path / "keys"
    path.write_bytes(public_pem(signer))
    verifier = TokenVerifier(path, ISSUER, AUDIENCE)
    good = jwt.encode(claims(), signer, "RS256")
    head, body, signature = good.split(".")
    other = jwt.encode(claims(sub="root"), rsa.generate_private_key(65537, 2048), "RS256")
    # The public key as a shared secret: PyJWT refuses to make such a token, so it is put together here.

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    begin = part(b'{"alg":"HS256","typ":"JWT"}') + "." + body
    confused = begin + "." + part(hmac.new(path.read_bytes(), begin.encode(), hashlib.sha256).digest())
    none = part(b'{"alg":"none","typ":"JWT"}') + "." + body + "."
    for forged in (other, confused, none, f"{head}.{body}.", f"{head}.{body}.{signature[::-1]}", "", "a.b.c", "\x00"):
        with pytest.raises(ValueError, match="token"):
            verifier.client(forged)
    assert verifier.client(good) == "studio"


def test_a_token_that_is_remembered_expires_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys"
    path.write_bytes(public_pem(SIGNERS["ES256"]))
    verifier = TokenVerifier(path, ISSUER, AUDIENCE)
    token = jwt.encode(claims(exp=int(time.time()) - 20), SIGNERS["ES256"], "ES256")  # within the leeway
    assert verifier.client(token) == "studio"
    real = time.time
    monkeypatch.setattr("service.access.tokens.time.time", lambda: real() + 60)

    def verify(*_: object) -> None:
        raise ValueError("looked at anew")

    monkeypatch.setattr(TokenVerifier, "_verify", verify)
    with pytest.raises(ValueError, match="looked at anew"):
        verifier.client(token)


def test_a_key_that_is_withdrawn_opens_no_more(tmp_path: Path, clock: Callable[[float], None]) -> None:
    path = tmp_path / "keys"
    path.write_bytes(public_pem(SIGNERS["ES256"]))
    verifier = TokenVerifier(path, ISSUER, AUDIENCE)
    token = jwt.encode(claims(), SIGNERS["ES256"], "ES256")
    assert verifier.client(token) == "studio"
    path.write_bytes(public_pem(SIGNERS["EdDSA"]))
    clock(2)
    with pytest.raises(ValueError, match="neither"):
        verifier.client(token)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"rubbish",
        b"{}",
        b'{"keys": []}',
        b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}',
        private_pem(SIGNERS["ES256"]),
    ],
)
def test_keys_that_cannot_be_used_are_an_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "keys"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"it is (no|neither) |it holds "):
        TokenVerifier(path, ISSUER, AUDIENCE)


@pytest.fixture
def gate(tmp_path: Path) -> tuple[Gate, str]:
    """A gate with one key, and the key."""
    key, line = make_key("studio")
    path = tmp_path / "keys"
    path.write_text(line)
    return Gate(Settings(auth_keys=path)), key


METHOD = "/upscale.v1.UpscaleService/Upscale"


def test_the_gate_opens_to_a_key(gate: tuple[Gate, str]) -> None:
    opened, key = gate
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert opened.token_owner(METHOD, [("a", "b"), ("authorization", f"{scheme} {key}")]) == "studio"


@pytest.mark.parametrize("metadata", [[], [("authorization", "Basic eA==")], [("authorization", "Bearer ")]])
def test_the_gate_is_closed_to_others(gate: tuple[Gate, str], metadata: list[tuple[str, str]]) -> None:
    with pytest.raises(UnauthenticatedError, match="token"):
        gate[0].token_owner(METHOD, metadata)


def test_two_tokens_are_none(gate: tuple[Gate, str]) -> None:
    twice = [("authorization", f"Bearer {gate[1]}")] * 2
    with pytest.raises(UnauthenticatedError, match="once"):
        gate[0].token_owner(METHOD, twice)


def test_health_is_open_to_all(gate: tuple[Gate, str]) -> None:
    assert gate[0].token_owner("/grpc.health.v1.Health/Check", []) is None
    with pytest.raises(UnauthenticatedError):
        gate[0].token_owner("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", [])


@pytest.mark.parametrize(
    ("owner", "peer", "context", "client"),
    [
        ("studio", "ipv4:192.0.2.1:4711", {"x509_common_name": [b"host"]}, Client("studio", "studio")),
        (None, "ipv4:192.0.2.1:4711", {"x509_common_name": [b"host"]}, Client("host", "host")),
        (
            None,
            "ipv4:192.0.2.1:4711",
            {"x509_subject_alternative_name": [b"spiffe://a/b", b"host"], "x509_common_name": [b"host"]},
            Client("spiffe://a/b", "spiffe://a/b"),
        ),
        (None, "ipv4:192.0.2.1:4711", {}, Client("192.0.2.1", "ipv4:192.0.2.1:4711")),
        (None, "ipv6:%5B2001:db8::1%5D:4711", {}, Client("%5B2001:db8::1%5D", "ipv6:%5B2001:db8::1%5D:4711")),
        (None, "unix:", {}, Client("unix:", "unix:")),
    ],
)
def test_a_client_goes_by_its_best_name(
    owner: str | None, peer: str, context: dict[str, list[bytes]], client: Client
) -> None:
    assert client_of(owner, peer, context) == client


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tls_certificate": "a"}, "belong together"),
        ({"tls_key": "a"}, "belong together"),
        ({"tls_client_ca": "a"}, "needs tls_certificate"),
        ({"auth_jwt_keys": "a", "auth_jwt_issuer": "a"}, "needs auth_jwt_issuer and auth_jwt_audience"),
    ],
)
def test_half_measures_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**settings)


def limits(frames_per_s: float = 10, burst: int = 5, sessions: int = 2) -> ClientLimits:
    return ClientLimits(frames_per_s=frames_per_s, burst=burst, sessions=sessions)


def test_a_client_has_its_burst_and_then_its_rate() -> None:
    mine = limits()
    for _ in range(5):
        mine.take_frame("a", 0.0)
    with pytest.raises(ClientLimitError, match="client 'a' sends more than 10 frames a second") as caught:
        mine.take_frame("a", 0.0)
    assert caught.value.retry_after_s == pytest.approx(0.1)
    mine.take_frame("b", 0.0)  # another is not touched by it
    mine.take_frame("a", 0.1001)
    with pytest.raises(ClientLimitError):
        mine.take_frame("a", 0.1002)


@given(st.lists(st.floats(0, 0.5), max_size=200))
def test_no_client_gets_more_than_its_burst_and_rate(gaps: list[float]) -> None:
    mine, now, taken = limits(), 0.0, 0
    waits: list[float | None] = []
    for gap in gaps:
        now += gap
        try:
            mine.take_frame("a", now)
            taken += 1
        except ClientLimitError as error:
            waits.append(error.retry_after_s)
        assert taken <= 5 + 10 * now + 1e-6
    assert all(wait is not None and 0 <= wait <= 0.1 for wait in waits)


def test_without_a_limit_there_is_none() -> None:
    free = limits(frames_per_s=0, sessions=0)
    for _ in range(1000):
        free.take_frame("a", 0.0)
    with free.session("a", 0.0), free.session("a", 0.0), free.session("a", 0.0):
        pass


def test_sessions_are_counted_and_given_back() -> None:
    mine = limits()
    with mine.session("a", 0.0):
        with (
            mine.session("a", 0.0),
            pytest.raises(ClientLimitError, match="has 2 sessions open"),
            mine.session("a", 0.0),
        ):
            pass
        with mine.session("a", 0.0), mine.session("b", 0.0):
            pass


def test_clients_that_left_are_forgotten() -> None:
    mine = limits()
    with mine.session("stays", 0.0):
        for number in range(10_000):
            mine.take_frame(f"client {number}", number / 10)
        assert len(mine) < 2500
        for number in range(3000):
            mine.take_frame("last", 1e6 + number)
        assert len(mine) == 2
