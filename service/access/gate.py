"""Who a call is from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from service.access.keys import StaticKeys
from service.access.tls import client_name
from service.access.tokens import TokenVerifier
from service.errors import UnauthenticatedError

_HEADER = "authorization"
_SCHEME = "bearer "
# A load balancer asks for health and has no token.
_OPEN = ("/grpc.health.v1.Health/",)


@dataclass(frozen=True)
class Client:
    """Who a call is from."""

    name: str
    """From its token, key or certificate, or else its address; what its limits go by."""
    share: str
    """Among whom what there is is shared fairly: a client that is known by name has one share; of the others each
    connection has one, for many may stand behind an address.
    """


class _Settings(Protocol):
    @property
    def auth_keys(self) -> Path | None: ...
    @property
    def auth_jwt_keys(self) -> Path | None: ...
    @property
    def auth_jwt_issuer(self) -> str: ...
    @property
    def auth_jwt_audience(self) -> str: ...


class Gate:
    """Lets in whom the settings say: anybody, or who has one of the keys or a token that is valid.

    Raises:
        OSError, ValueError: the files that the settings name cannot be read, or make no sense.
    """

    def __init__(self, settings: _Settings) -> None:
        self._keys = None if settings.auth_keys is None else StaticKeys(settings.auth_keys)
        self._tokens = (
            None
            if settings.auth_jwt_keys is None
            else TokenVerifier(settings.auth_jwt_keys, settings.auth_jwt_issuer, settings.auth_jwt_audience)
        )

    def token_owner(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
        """Whose token a call brings; None if it needs none.

        Raises:
            UnauthenticatedError: it needs one, and brings none that is valid.
        """
        if (self._keys is None and self._tokens is None) or method.startswith(_OPEN):
            return None
        values = [value for key, value in metadata if key == _HEADER]
        value = values[0] if len(values) == 1 else ""
        if not isinstance(value, str) or value[: len(_SCHEME)].lower() != _SCHEME:
            raise UnauthenticatedError("this service needs a token: metadata 'authorization: Bearer <token>', once")
        token = value[len(_SCHEME) :].strip()
        if self._keys is not None and (client := self._keys.client(token)) is not None:
            return client
        if self._tokens is None:
            raise UnauthenticatedError("the token is no key of this service's")
        try:
            return self._tokens.client(token)
        except ValueError as error:
            raise UnauthenticatedError(str(error)) from None


def client_of(token_owner: str | None, peer: str, auth_context: Mapping[str, Iterable[bytes]]) -> Client:
    """The client of a call that was let in.

    Args:
        token_owner: whose token it brought.
        peer: the connection's other end, as gRPC writes it: "ipv4:192.0.2.1:4711".
        auth_context: the connection's.
    """
    name = token_owner or client_name(auth_context)
    if name is not None:
        return Client(name, name)
    kind, _, address = peer.partition(":")
    return Client(address.rpartition(":")[0] if kind in ("ipv4", "ipv6") else peer, peer)
