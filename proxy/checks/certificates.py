"""What a certificate says of itself, for people: whose it is, who vouches for it, and until when."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from proxy.checks.finding import plain

_LISTED: Final = 4
_BEGINNING: Final = b"-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Certificate:
    """names: hosts and addresses that it is for, else its common name. issuer: "" for a self-signed one. Unix times."""

    names: tuple[str, ...]
    issuer: str
    begins: float
    ends: float

    def __str__(self) -> str:
        listed = ", ".join(plain(name, 60) for name in self.names[:_LISTED]) or "nobody"
        more = " and more" if len(self.names) > _LISTED else ""
        issued = f'issued by "{plain(self.issuer, 80)}"' if self.issuer else "self-signed"
        return f"a certificate for {listed}{more}, {issued}, from {_day(self.begins)} to {_day(self.ends)}"


def read(der: bytes) -> Certificate | None:
    """None when it is not one that can be read."""
    try:
        return _told(x509.load_der_x509_certificate(der))
    except ValueError:
        return None


def of_file(path: Path) -> Certificate | None:
    """The first of a PEM file: the one that is shown. None when there is none to be read: others say so."""
    try:
        content = path.read_bytes()
        return _told(x509.load_pem_x509_certificate(content[content.index(_BEGINNING) :]))
    except (OSError, ValueError):
        return None


def _told(certificate: x509.Certificate) -> Certificate:
    return Certificate(
        names=tuple(_names(certificate)),
        issuer="" if certificate.issuer == certificate.subject else _name(certificate.issuer),
        begins=certificate.not_valid_before_utc.timestamp(),
        ends=certificate.not_valid_after_utc.timestamp(),
    )


def _names(certificate: x509.Certificate) -> Iterator[str]:
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        yield from alternatives.get_values_for_type(x509.DNSName)
        yield from map(str, alternatives.get_values_for_type(x509.IPAddress))
    except x509.ExtensionNotFound:
        yield _name(certificate.subject)


def _name(name: x509.Name) -> str:
    for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME, NameOID.ORGANIZATION_NAME):
        if found := name.get_attributes_for_oid(oid):
            return str(found[0].value)
    return name.rfc4514_string()


def _day(unix: float) -> str:
    return f"{datetime.fromtimestamp(unix, UTC):%Y-%m-%d}"
