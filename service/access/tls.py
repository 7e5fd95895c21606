"""The service's own certificate, and whose clients' certificates it accepts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from service.access.files import ReloadedFiles


def server_credentials(
    certificate: Path, key: Path, client_ca: Path | None
) -> tuple[grpc.ServerCredentials, Callable[[], float]]:
    """TLS with a certificate that is read again when its files change; connections that are open keep theirs.

    Args:
        certificate: PEM; the service's own, then those that lead to its root.
        key: PEM, of the first of them, without a passphrase.
        client_ca: PEM; only clients with a certificate from one of these may connect (mTLS). None: any client.

    Returns:
        The credentials, and what gives the moment at which the first of the service's own certificates ends, in seconds
        since 1970.

    Raises:
        OSError, ValueError: a file cannot be read, or makes no sense.
    """
    paths = [certificate, key, *([] if client_ca is None else [client_ca])]
    files = ReloadedFiles(paths, _configuration)

    def current() -> grpc.ServerCertificateConfiguration:
        """Called for every new connection, from a thread of gRPC's."""
        return files.value[0]

    credentials = grpc.dynamic_ssl_server_credentials(
        current(), current, require_client_authentication=client_ca is not None
    )
    return credentials, lambda: files.value[1]


def client_name(auth_context: Mapping[str, Iterable[bytes]]) -> str | None:
    """The name in the certificate that a client connected with.

    It is the first of its alternative names (a URI such as SPIFFE's, or a DNS name), or else its common name.
    """
    for field in ("x509_subject_alternative_name", "x509_common_name"):
        for name in auth_context.get(field, ()):
            return name.decode()
    return None


def _configuration(
    certificate: bytes, key: bytes, client_ca: bytes | None = None
) -> tuple[grpc.ServerCertificateConfiguration, float]:
    """What gRPC needs, and when the first of the certificates ends."""
    # gRPC would accept anything, and then refuse every client without a word.
    chain = _certificates("the certificate", certificate)
    own = chain[0]
    try:
        private = load_pem_private_key(key, password=None)
    except (ValueError, TypeError):
        raise ValueError("the key is no private key in PEM without a passphrase") from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != own.public_key().public_bytes(*form):
        raise ValueError("the key is not that of the certificate")
    if client_ca is not None:
        _certificates("the clients' CA", client_ca)
    ends = min(each.not_valid_after_utc.timestamp() for each in chain)
    return grpc.ssl_server_certificate_configuration([(key, certificate)], client_ca), ends


def _certificates(what: str, data: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        raise ValueError(f"{what} is no certificate in PEM") from None
