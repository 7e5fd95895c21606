"""Certificates for tests."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


@dataclass
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


class Authority:
    """Issues certificates into a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = folder / f"{name}.pem"
        self.certificate.write_bytes(self._sign(self._name, self._key).public_bytes(Encoding.PEM))

    def issue(self, common_name: str, file: str, address: str = "127.0.0.1") -> Pair:
        """A certificate; one for localhost is good for an address, too."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        pair = Pair(self._folder / f"{file}.crt", self._folder / f"{file}.key")
        # By renaming, as the settings ask for.
        for path, data in (
            (pair.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())),
            (pair.certificate, self._sign(name, key, address).public_bytes(Encoding.PEM)),
        ):
            new = path.with_suffix(".new")
            new.write_bytes(data)
            new.replace(path)
        return pair

    def _sign(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, address: str = "") -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=not address, path_length=None), critical=True)
        )
        if name.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "localhost":
            names = [x509.DNSName("localhost"), x509.IPAddress(ip_address(address))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())
