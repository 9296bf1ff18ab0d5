"""The one kind of certificate that devices show each other, and what is refused for differing from it."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from actors.exceptions import AuthenticationError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

LARGEST_BYTES = 4096
"""Of a certificate that is looked at. One of this profile takes about 900 bytes; a longer one is not parsed."""

# Clocks of small devices are wrong: certificates are valid always, and trust ends by removal, not by date.
_VALID = (datetime(2000, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))


@lru_cache(maxsize=1024)
def node_id_of(certificate: bytes) -> str:
    """The node id that belongs to the key in a certificate (PEM), whatever names it shows. Says nothing about trust.

    Raises:
        AuthenticationError: it is not a certificate.
    """
    return node_id_of_key(_read(certificate).public_key())


@lru_cache(maxsize=1024)  # asked at every dial, and takes a quarter of a millisecond
def check_profile(certificate: bytes) -> str:
    """Check that a certificate (PEM) is one that a device makes for itself, and nothing else.

    A trusted certificate that may sign others would let its owner connect in any name, so whatever differs from
    the profile is refused: one certificate, self-signed by a P-256 key, its names the node id of that key, valid
    from 2000 to 9999, not an authority, key usage digital signature only, extended key usage server and client.

    Returns:
        The node id.

    Raises:
        AuthenticationError: it differs; the message says in what.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    read = _read(certificate)
    if read.public_bytes(serialization.Encoding.PEM) != certificate:
        raise _refused("the text holds more than one certificate, or something around it")
    key = read.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _refused("its key is not an ECDSA key on P-256")
    try:
        reason = _first_difference(read, key)
    except Exception as error:  # what cryptography raises on damaged bytes is of many kinds
        raise _refused("it cannot be parsed") from error
    if reason:
        raise _refused(reason)
    return node_id_of_key(key)


def _first_difference(read: x509.Certificate, key: CertificatePublicKeyTypes) -> str | None:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization

    name = _name(node_id_of_key(key))
    if read.version is not x509.Version.v3:
        return "it is not of version 3"
    if read.subject != name:
        return "its subject is not the node id of its key"
    if read.issuer != name:
        return "it was issued by another device"
    if (read.not_valid_before_utc, read.not_valid_after_utc) != _VALID:
        return "it is not valid from 2000 to 9999"
    found = {type(extension.value).__name__: (extension.value, extension.critical) for extension in read.extensions}
    wanted = {type(value).__name__: (value, critical) for value, critical in _extensions(key)}
    for kind in sorted(found.keys() | wanted.keys()):
        if kind not in wanted:
            return f"it has an extension that does not belong there: {kind}"
        if found.get(kind) != wanted[kind]:
            return f"its {kind} is missing or not as it should be"
    if not isinstance(read.signature_hash_algorithm, hashes.SHA256):
        return "it is not signed with SHA-256"
    try:
        read.verify_directly_issued_by(read)
    except InvalidSignature:
        return "it is not signed by its own key"
    # The count of unused bits before the signature is covered by no signature: two texts would be one certificate.
    if not read.public_bytes(serialization.Encoding.DER).endswith(b"\0" + read.signature):
        return "its signature is not a whole number of bytes"
    return None


def self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """The certificate that the owner of ``key`` makes for itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    name = _name(node_id_of_key(key.public_key()))
    builder = x509.CertificateBuilder(
        subject_name=name,
        issuer_name=name,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=_VALID[0],
        not_valid_after=_VALID[1],
    )
    for value, critical in _extensions(key.public_key()):
        builder = builder.add_extension(value, critical=critical)
    return builder.sign(key, hashes.SHA256())


def _extensions(key: CertificatePublicKeyTypes) -> list[tuple[x509.ExtensionType, bool]]:
    """The extensions of the certificate of a key, each with whether it is critical."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    digital_signature, the_rest = True, [False] * 8
    return [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        # Signing its own handshakes is all it may do: without this, BoringSSL takes what it signs for trusted.
        (x509.KeyUsage(digital_signature, *the_rest), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False),
        (x509.SubjectAlternativeName([x509.DNSName(node_id_of_key(key))]), False),
        (x509.SubjectKeyIdentifier.from_public_key(key), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(key), False),  # type: ignore[arg-type]
    ]


def _name(node_id: str) -> x509.Name:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, node_id)])


def node_id_of_key(key: CertificatePublicKeyTypes) -> str:
    """The node id of the owner of a public key: lowercase base32 of the sha256 of its SPKI, 52 characters."""
    from cryptography.hazmat.primitives import serialization

    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b32encode(hashlib.sha256(spki).digest()).decode().rstrip("=").lower()


def _read(certificate: bytes) -> x509.Certificate:
    from cryptography import x509

    if len(certificate) > LARGEST_BYTES:
        raise _refused(f"it has {len(certificate)} bytes, more than {LARGEST_BYTES}")
    try:
        read = x509.load_pem_x509_certificate(certificate)
        read.public_key()
    except Exception as error:  # what cryptography raises on damaged bytes is of many kinds
        raise _refused("it cannot be parsed") from error
    return read


def _refused(reason: str) -> AuthenticationError:
    return AuthenticationError(f"certificate refused: {reason}")
