"""Who a device is, and whom it trusts: one key, one certificate, and the certificates of paired devices."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from actors.certificate import LARGEST_BYTES, check_profile, node_id_of, node_id_of_key, self_signed
from actors.exceptions import ActorsError, AuthenticationError
from actors.home import locked, private_folder, write_private

if TYPE_CHECKING:
    from pathlib import Path

_FILE = "identity.pem"
_KEY_STARTS = b"-----BEGIN PRIVATE KEY-----"


@dataclass(frozen=True, slots=True)
class Identity:
    """A device's key pair and the certificate that shows it.

    Attributes:
        node_id: lowercase base32 of the sha256 of the public key (SPKI), 52 characters.
        certificate: self-signed, PEM; see ``certificate.check_profile``.
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
            node_id_of_key(key.public_key()),
            self_signed(key).public_bytes(serialization.Encoding.PEM),
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
                content = file.read(2 * LARGEST_BYTES)
        except OSError as error:
            raise ActorsError(f"cannot read this device's identity from {path}: {error.strerror}") from error
        if mode & 0o077:
            raise ActorsError(
                f"this device's private key in {path} is open to other users (mode {mode:04o}); if nobody else can "
                f"have read it, run: chmod 600 '{path}', else delete it and pair the device again"
            )
        try:
            return cls.parse(content)
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

    def sign(self, text: bytes) -> bytes:
        """This device's signature under a text, ECDSA with SHA-256; `is_signed` checks it."""
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = serialization.load_pem_private_key(self.private_key, password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key.sign(text, ec.ECDSA(hashes.SHA256()))

    @classmethod
    def parse(cls, content: bytes) -> Identity:
        """Reads certificate and key, one after the other, as PEM.

        Raises:
            AuthenticationError: they are damaged, or do not belong together.
        """
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        certificate, start, rest = content.partition(_KEY_STARTS)
        node_id = check_profile(certificate)
        private_key = start + rest
        try:
            key = serialization.load_pem_private_key(private_key, password=None)
        except Exception as error:  # what cryptography raises on damaged bytes is of many kinds
            raise AuthenticationError("it holds no private key that can be read") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or node_id_of_key(key.public_key()) != node_id:
            raise AuthenticationError("its private key belongs to another certificate")
        return cls(node_id, certificate, private_key)


def is_signed(certificate: bytes, text: bytes, signature: bytes) -> bool:
    """Whether the owner of a certificate (PEM, on the profile) has put this signature under this text."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = x509.load_pem_x509_certificate(certificate).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    try:
        key.verify(signature, text, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _write(identity: Identity, folder: Path) -> None:
    # Key and certificate in one file: a crash can never leave the one without the other.
    write_private(folder / _FILE, identity.certificate + identity.private_key)


class TrustSet(Mapping[str, bytes]):
    """The certificates (PEM) of the devices that may connect, by node id.

    Changes count at once for whoever holds the set; all methods may be called from any thread.
    """

    __slots__ = ("_certificates", "_joined", "_lock")

    def __init__(self, certificates: Iterable[bytes] = ()) -> None:
        """Trust these certificates.

        Raises:
            AuthenticationError: one is off the profile; see ``certificate.check_profile``.
        """
        self._lock = threading.Lock()
        self._joined: tuple[dict[str, bytes], bytes] | None = None  # of certificates, all of them as one text
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
        certificates, joined = self._certificates, self._joined
        if joined is None or joined[0] is not certificates:
            joined = self._joined = certificates, b"".join(certificates.values())
        return joined[1]

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
            certificate = _trusted(path)
            if certificate is not None:  # else removed since the folder was listed: no longer trusted
                certificates.append(certificate)
        return cls(certificates)

    @classmethod
    def load_one(cls, folder: Path, node_id: str) -> bytes | None:
        """The certificate of one device in ``folder``, without a look at all others; None where it is not trusted.

        Raises:
            ActorsError: see `load`.
        """
        certificate = _trusted(folder / f"{node_id}.pem") if node_id.isalnum() else None
        if certificate is not None and check_profile(certificate) == node_id:
            return certificate
        return cls.load(folder).get(node_id)  # somebody has named the files

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


def _trusted(path: Path) -> bytes | None:
    """The certificate in a file; None where that is not there."""
    try:
        certificate = path.read_bytes()
        check_profile(certificate)
    except FileNotFoundError:
        return None
    except (OSError, AuthenticationError) as error:
        raise ActorsError(f"{path} cannot be trusted ({error}); replace or remove the file") from error
    return certificate
