"""JSON Web Tokens from an identity provider."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from service.access.files import ReloadedFiles

_LEEWAY_S = 30
"""How far the provider's clock may be from ours."""
_REMEMBERED = 1024
# By the kind of key, never by what the token says: else a public key could pass for a shared secret.
_ALGORITHMS: dict[type, list[str]] = {
    RSAPublicKey: ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
    EllipticCurvePublicKey: ["ES256", "ES384", "ES512"],
    Ed25519PublicKey: ["EdDSA"],
}
_Keys = dict[str | None, Any]
"""Public keys by their key id; None for the key that needs none."""


class TokenVerifier:
    """Tells whose a token is.

    Args:
        keys: the provider's public keys: a JWKS (JSON), or one key in PEM.
        issuer: what its tokens' `iss` must be.
        audience: what must be in their `aud`.

    Raises:
        OSError, ValueError: the keys cannot be read, or make no sense.
    """

    def __init__(self, keys: Path, issuer: str, audience: str) -> None:
        self._keys = ReloadedFiles([keys], _parse)
        self._issuer = issuer
        self._audience = audience
        # A signature takes as long to check as a frame to be planned; a client sends the same token with every frame.
        self._known: dict[bytes, tuple[str, float, _Keys]] = {}

    def client(self, token: str) -> str:
        """The token's subject.

        Raises:
            ValueError: it is not valid; the message says why, and nothing that is secret.
        """
        keys = self._keys.value
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known is not None and known[2] is keys and time.time() < known[1]:
            return known[0]
        client, expires = self._verify(token, keys)
        while len(self._known) >= _REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[digest] = (client, expires, keys)
        return client

    def _verify(self, token: str, keys: _Keys) -> tuple[str, float]:
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
            key = keys.get(key_id, keys.get(None))
            if key is None:
                raise ValueError("the token is signed with a key that is not known")
            claims = jwt.decode(
                token,
                key,
                algorithms=_algorithms(key),
                audience=self._audience,
                issuer=self._issuer,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "sub", "iss", "aud"]},
            )
        except jwt.ExpiredSignatureError:
            raise ValueError("the token has expired") from None
        except jwt.InvalidSignatureError:
            raise ValueError("the token's signature is wrong") from None
        except jwt.InvalidAudienceError:
            raise ValueError(f"the token is not for {self._audience!r}") from None
        except jwt.InvalidIssuerError:
            raise ValueError(f"the token is not from {self._issuer!r}") from None
        except jwt.MissingRequiredClaimError as error:
            raise ValueError(f"the token has no {error.claim!r}") from None
        except jwt.PyJWTError:
            raise ValueError("the token is neither a key of this service's nor a valid JSON Web Token") from None
        client, expires = claims["sub"], claims["exp"]
        # PyJWT takes a number in quotes, too, and JSON a name that no log can show.
        if not client.isprintable() or not client or not isinstance(expires, int | float):
            raise ValueError("the token's 'sub' is no name, or its 'exp' no number")
        return client, expires + _LEEWAY_S


def _algorithms(key: object) -> list[str]:
    return next((names for kind, names in _ALGORITHMS.items() if isinstance(key, kind)), [])


def _parse(data: bytes) -> _Keys:
    if data.lstrip().startswith(b"{"):
        try:
            keys: _Keys = {key.key_id: key.key for key in jwt.PyJWKSet.from_dict(json.loads(data)).keys}
        # Whatever they trip over, the file is at fault; it is half a dozen unrelated kinds.
        except Exception:
            raise ValueError("it is no JSON Web Key Set") from None
    else:
        try:
            keys = {None: load_pem_public_key(data)}
        except Exception:
            raise ValueError("it is neither a JSON Web Key Set nor a public key in PEM") from None
    # Symmetric and private ones would let the service make tokens; other curves we do not know.
    if not all(_algorithms(key) for key in keys.values()):
        raise ValueError("it holds a key that is not a public one for RSA, ECDSA or Ed25519")
    return keys
