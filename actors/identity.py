"""Who a device is, and whom it trusts: one key, one certificate, and the certificates of paired devices."""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from actors.exceptions import ActorsError, AuthenticationError
from actors.home import locked, private_folder, write_private

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

_FILE = "identity.pem"
_KEY_STARTS = b"-----BEGIN PRIVATE KEY-----"
# Clocks of small devices are wrong: certificates are valid always, and trust ends by removal, not by date.
_VALID = (datetime(2000, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
# One of this profile takes about 900 bytes; a longer one is not parsed.
_LARGEST_CERTIFICATE = 4096


@dataclass(frozen=True, slots=True)
class Identity:
    """A device's key pair and the certificate that shows it.

    Attributes:
        node_id: lowercase base32 of the sha256 of the public key (SPKI), 52 characters.
        certificate: self-signed, PEM; see ``check_profile``.
        private_key: ECDSA on P-256, PKCS 8, PEM, not encrypted.
    """

    node_id: str
    certificate: bytes
    private_key: bytes = field(repr=False)

    @classmethod
    def create(cls) -> Identity:
        """A new identity, with a key that nobody had before."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        # gRPC's TLS refuses Ed25519; P-256 shakes hands in a third of RSA's time.
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(
            _node_id(key.public_key()),
            _self_signed(key).public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )

    @classmethod
    def load(cls, folder: Path) -> Identity:
        """Read the identity that ``save`` wrote.

        Raises:
            ActorsError: there is none, others can read it, or it is damaged.
        """
        path = folder / _FILE
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode & 0o777
                content = file.read(2 * _LARGEST_CERTIFICATE)
        except OSError as error:
            raise ActorsError(f"cannot read this device's identity from {path}: {error.strerror}") from error
        if mode & 0o077:
            raise ActorsError(
                f"this device's private key in {path} is open to other users (mode {mode:04o}); if nobody else can "
                f"have read it, run: chmod 600 '{path}', else delete it and pair the device again"
            )
        try:
            return cls._parse(content)
        except AuthenticationError as error:
            raise ActorsError(
                f"this device's identity in {path} is damaged ({error}); restore the file, or delete it and pair the "
                "device again"
            ) from error

    @classmethod
    def load_or_create(cls, folder: Path) -> Identity:
        """The identity in ``folder``, made where there is none; processes that ask at once all get the same.

        Raises:
            ActorsError: the folder is not this user's alone, or what is in it cannot be used. A damaged identity is
                never replaced: other devices know this one by it.
        """
        private_folder(folder)
        with locked(folder / "lock"):
            if (folder / _FILE).exists():
                return cls.load(folder)
            identity = cls.create()
            _write(identity, folder)
            return identity

    def save(self, folder: Path) -> None:
        """Write the identity into ``folder`` (mode 0700), in one file of mode 0600, whole or not at all.

        Raises:
            ActorsError: the folder is not this user's alone.
        """
        private_folder(folder)
        with locked(folder / "lock"):
            _write(self, folder)

    @classmethod
    def _parse(cls, content: bytes) -> Identity:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        certificate, start, rest = content.partition(_KEY_STARTS)
        node_id = check_profile(certificate)
        private_key = start + rest
        try:
            key = serialization.load_pem_private_key(private_key, password=None)
        except Exception as error:  # what cryptography raises on damaged bytes is of many kinds
            raise AuthenticationError("it holds no private key that can be read") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or _node_id(key.public_key()) != node_id:
            raise AuthenticationError("its private key belongs to another certificate")
        return cls(node_id, certificate, private_key)


def _write(identity: Identity, folder: Path) -> None:
    # Key and certificate in one file: a crash can never leave the one without the other.
    write_private(folder / _FILE, identity.certificate + identity.private_key)


class TrustSet(Mapping[str, bytes]):
    """The certificates (PEM) of the devices that may connect, by node id.

    Changes count at once for whoever holds the set; all methods may be called from any thread.
    """

    __slots__ = ("_bundle", "_certificates", "_lock")

    def __init__(self, certificates: Iterable[bytes] = ()) -> None:
        """Trust these certificates.

        Raises:
            AuthenticationError: one is off the profile; see ``check_profile``.
        """
        self._lock = threading.Lock()
        self.replace(certificates)

    def __getitem__(self, node_id: str) -> bytes:
        return self._certificates[node_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._certificates)

    def __len__(self) -> int:
        return len(self._certificates)

    def __repr__(self) -> str:
        return f"TrustSet({list(self)})"

    @property
    def bundle(self) -> bytes:
        """All certificates as one PEM text, empty where nobody is trusted."""
        return self._bundle

    def add(self, certificate: bytes) -> str:
        """Trust one more device.

        Returns:
            Its node id.

        Raises:
            AuthenticationError: the certificate is off the profile.
        """
        node_id = check_profile(certificate)
        with self._lock:
            self._set(self._certificates | {node_id: certificate})
        return node_id

    def remove(self, node_id: str) -> None:
        """Trust a device no longer; one that was not trusted stays so."""
        with self._lock:
            self._set({known: pem for known, pem in self._certificates.items() if known != node_id})

    def replace(self, certificates: Iterable[bytes]) -> None:
        """Trust exactly these.

        Raises:
            AuthenticationError: one is off the profile; the set is as it was.
        """
        checked = {check_profile(certificate): certificate for certificate in certificates}
        with self._lock:
            self._set(checked)

    def node_id_of(self, certificate: bytes) -> str | None:
        """The trusted device that owns the key of this certificate (PEM); None where no such device is trusted.

        Only the key counts: the names in a certificate are whatever its maker wrote.
        """
        try:
            node_id = node_id_of(certificate)
        except AuthenticationError:
            return None
        return node_id if node_id in self._certificates else None

    @classmethod
    def load(cls, folder: Path) -> TrustSet:
        """Trust the certificates in the ``*.pem`` files of ``folder``; nobody where it does not exist.

        Raises:
            ActorsError: a file cannot be read, or its certificate is off the profile; the message names the file.
        """
        certificates = []
        for path in sorted(folder.glob("*.pem")):
            try:
                certificates.append(path.read_bytes())
                check_profile(certificates[-1])
            except FileNotFoundError:
                continue  # removed since the folder was listed: no longer trusted
            except (OSError, AuthenticationError) as error:
                raise ActorsError(f"{path} cannot be trusted ({error}); replace or remove the file") from error
        return cls(certificates)

    def save(self, folder: Path) -> None:
        """Make the ``*.pem`` files of ``folder`` (mode 0700) hold exactly this set, one file for each device.

        Raises:
            ActorsError: the folder is not this user's alone.
        """
        private_folder(folder)
        with locked(folder / "lock"):
            wanted = {folder / f"{node_id}.pem": pem for node_id, pem in self._certificates.items()}
            for path, pem in wanted.items():
                if not path.exists() or path.read_bytes() != pem:
                    write_private(path, pem)
            for path in folder.glob("*.pem"):
                if path not in wanted:
                    path.unlink()

    def _set(self, certificates: dict[str, bytes]) -> None:
        # Swapped, never altered: readers, on gRPC's threads too, take no lock.
        self._certificates = dict(sorted(certificates.items()))
        self._bundle = b"".join(self._certificates.values())


@lru_cache(maxsize=1024)
def node_id_of(certificate: bytes) -> str:
    """The node id that belongs to the key in a certificate (PEM), whatever names it shows. Says nothing about trust.

    Raises:
        AuthenticationError: it is not a certificate.
    """
    return _node_id(_read(certificate).public_key())


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
    return _node_id(key)


def _first_difference(read: x509.Certificate, key: CertificatePublicKeyTypes) -> str | None:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes

    name = _name(_node_id(key))
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
    return None


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    name = _name(_node_id(key.public_key()))
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
        (x509.SubjectAlternativeName([x509.DNSName(_node_id(key))]), False),
        (x509.SubjectKeyIdentifier.from_public_key(key), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(key), False),  # type: ignore[arg-type]
    ]


def _name(node_id: str) -> x509.Name:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, node_id)])


def _node_id(key: CertificatePublicKeyTypes) -> str:
    from cryptography.hazmat.primitives import serialization

    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b32encode(hashlib.sha256(spki).digest()).decode().rstrip("=").lower()


def _read(certificate: bytes) -> x509.Certificate:
    from cryptography import x509

    if len(certificate) > _LARGEST_CERTIFICATE:
        raise _refused(f"it has {len(certificate)} bytes, more than {_LARGEST_CERTIFICATE}")
    try:
        read = x509.load_pem_x509_certificate(certificate)
        read.public_key()
    except Exception as error:  # what cryptography raises on damaged bytes is of many kinds
        raise _refused("it cannot be parsed") from error
    return read


def _refused(reason: str) -> AuthenticationError:
    return AuthenticationError(f"certificate refused: {reason}")
