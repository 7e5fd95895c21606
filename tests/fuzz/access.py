"""Who may call: tokens, signed and not, the files of keys, and the header that names a trace."""

from __future__ import annotations

import base64
import contextlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from service import trace_context
from service.access import keys, tokens
from service.access.gate import Gate
from service.errors import UnauthenticatedError
from service.settings import Settings
from tests.fuzz.fuzzed import Fuzzed

_ISSUER, _AUDIENCE = "https://id.example", "upscale"
_CLAIMS = json.dumps({"sub": "studio", "iss": _ISSUER, "aud": _AUDIENCE, "exp": 9_000_000_000}).encode()
_HEADER = b'{"alg":"EdDSA"}'
_BETWEEN = b"\xff"


class Access(Fuzzed):
    """The first byte says what it is; claims and headers are signed with the right key, so that they come further."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
        self._public = self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "keys.pem"
            path.write_bytes(self._public)
            self._verifier = tokens.TokenVerifier(path, _ISSUER, _AUDIENCE)
            # The file is looked at once a second, and shall be no part of this.
            settings = Settings(auth_jwt_keys=path, auth_jwt_issuer=_ISSUER, auth_jwt_audience=_AUDIENCE)
            self._gate = Gate(settings)
        for verifier in (self._verifier, self._gate._tokens):  # pyright: ignore[reportPrivateUsage]
            assert verifier is not None
            verifier._keys._looked_at = float("inf")  # pyright: ignore[reportPrivateUsage]

    def seeds(self) -> Sequence[bytes]:
        public = _part(self._key.public_key().public_bytes_raw())
        jwks = {"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "now", "x": public}]}
        rsa = {"keys": [{"kty": "RSA", "n": _part(b"\x81" * 128), "e": "AQAB"}, {"kty": "EC", "crv": "P-256"}]}
        return [
            b"\0" + self._signed(_HEADER, _CLAIMS).encode(),
            b"\1" + _CLAIMS,
            b"\1" + json.dumps({**json.loads(_CLAIMS), "nbf": 1, "iat": 1.5, "aud": ["a", _AUDIENCE]}).encode(),
            b"\2" + _HEADER + _BETWEEN + _CLAIMS,
            b"\2" + b'{"alg":"EdDSA","typ":"JWT","kid":"a","crit":["b64"]}' + _BETWEEN + _CLAIMS,
            *(b"\3" + json.dumps(each).encode() for each in (jwks, rsa)),
            b"\3" + self._public,
            b"\4studio sha256:" + b"a" * 64 + b"\n# nobody\n",
            b"\x0500-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ]

    def one(self, data: bytes) -> None:
        if not data:
            return
        kind, sent = data[0] % 6, data[1:]
        if kind <= 2:
            header, _, claims = sent.partition(_BETWEEN) if kind == 2 else (_HEADER, b"", sent)
            self._call(sent.decode("latin-1") if kind == 0 else self._signed(header, claims))
        elif kind == 5:
            found = trace_context.parent_in([("traceparent", sent.decode("latin-1"))])
            assert found is None or len(found.trace_id) == 32
        else:
            parse = tokens._parse if kind == 3 else keys._parse  # pyright: ignore[reportPrivateUsage]
            with contextlib.suppress(ValueError):
                parse(sent)

    def _call(self, token: str) -> None:
        try:
            client = self._gate.token_owner(
                "/upscale.v1.UpscaleService/Upscale", [("authorization", f"Bearer {token}")]
            )
        except UnauthenticatedError:
            return
        assert client
        assert client.isprintable()
        assert self._verifier.client(token.strip()) == client, "another client, by the very same token"

    def _signed(self, header: bytes, claims: bytes) -> str:
        text = f"{_part(header)}.{_part(claims)}"
        return f"{text}.{_part(self._key.sign(text.encode()))}"


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


ACCESS = Access()
