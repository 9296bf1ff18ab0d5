"""The two sides of a pairing as state machines: messages in, messages out. Pure but for random numbers.

SPAKE2 over the code gives both a key that nobody else has, unless they guessed the code, for which one exchange is one
guess. The joiner proves first that it has the key, then the inviter; only then do they show who they are, sealed:

    joiner                                       inviter
    hello {pake}                         →
                                         ←       answer {pake}                       here a try is spent
    proof {confirm}                      →
                                         ←       proof {confirm, sealed: card}       a card: certificate, signature
    card {sealed: card}                  →
                                         ←       welcome {sealed: statements}
    done {sealed}                        →

Whatever goes wrong, the other side is told one fixed word.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any

from actors.certificate import check_profile
from actors.exceptions import ActorsError, AuthenticationError
from actors.identity import is_signed

if TYPE_CHECKING:
    from actors.identity import Identity
    from actors.pairing.code import Code

VERSION = 1
LARGEST_BYTES = 64 << 10
LARGEST_WELCOME = 16 << 20
"""Of the roll of a cluster, which comes from a device that has proved the code."""

_CONTEXT = b"mlx-actors pairing 1 "


class WrongCodeError(AuthenticationError):
    """The other side does not have the same code."""


class PairingError(ActorsError):
    """The other side does not keep to the protocol, or gives up."""


class Keys:
    """What follows from the shared key of one exchange; each use has a key of its own."""

    def __init__(self, shared: bytes, salt: bytes) -> None:
        self.salt = salt
        self._shared = shared

    def _key(self, use: str) -> bytes:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        return HKDF(hashes.SHA256(), 32, self.salt, _CONTEXT + use.encode()).derive(self._shared)

    def confirmation(self, side: str) -> bytes:
        """What ``side`` shows to prove that it has the key."""
        return hmac.digest(self._key(f"confirm {side}"), self.salt, "sha256")

    def check(self, side: str, shown: bytes) -> None:
        """Checks the other side's confirmation.

        Raises:
            WrongCodeError: it has another key.
        """
        if not hmac.compare_digest(self.confirmation(side), shown):
            raise WrongCodeError("the other device does not have the same code")

    def seal(self, use: str, content: dict[str, Any]) -> bytes:
        """Encrypts a message; each use once."""
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        return ChaCha20Poly1305(self._key(use)).encrypt(bytes(12), json.dumps(content).encode(), use.encode())

    def open(self, use: str, sealed: bytes) -> dict[str, Any]:
        """Decrypts a message.

        Raises:
            PairingError: it was not sealed with this key for this use.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        try:
            content = json.loads(ChaCha20Poly1305(self._key(use)).decrypt(bytes(12), sealed, use.encode()))
        except (InvalidTag, ValueError) as error:
            raise PairingError("a sealed message cannot be opened") from error
        if not isinstance(content, dict):
            raise PairingError("a sealed message is not of the right form")
        return content

    def card(self, identity: Identity, side: str, **more: Any) -> bytes:
        """Who this device is, sealed; the signature shows that it owns its key, and binds it to this exchange."""
        signature = identity.sign(self._signed_text(side, identity.node_id))
        content = {"certificate": identity.certificate.decode(), "signature": to_text(signature), **more}
        return self.seal(f"card {side}", content)

    def read_card(self, side: str, sealed: bytes) -> tuple[bytes, dict[str, Any]]:
        """Opens the other side's card; returns its certificate and what else it holds.

        Raises:
            AuthenticationError: the certificate is off the profile, or not its own.
            PairingError: it is not of the right form.
        """
        content = self.open(f"card {side}", sealed)
        certificate = text_in(content, "certificate").encode()
        node_id = check_profile(certificate)
        if not is_signed(certificate, self._signed_text(side, node_id), bytes_in(content, "signature")):
            raise AuthenticationError("the other device shows a certificate that is not its own")
        return certificate, content

    def _signed_text(self, side: str, node_id: str) -> bytes:
        return _CONTEXT + side.encode() + self.salt + node_id.encode()


class Joiner:
    """The side that was given the code (side A)."""

    def __init__(self, code: Code) -> None:
        from spake2 import SPAKE2_A

        self._pake = SPAKE2_A(_password(code))
        self._hello: bytes = self._pake.start()
        self.keys: Keys | None = None

    def hello(self) -> dict[str, Any]:
        """The first message."""
        return {"version": VERSION, "pake": to_text(self._hello)}

    def prove(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Takes the inviter's answer; returns the proof."""
        theirs = bytes_in(answer, "pake")
        self.keys = Keys(_finish(self._pake, theirs), _salt(self._hello, theirs))
        return {"confirm": to_text(self.keys.confirmation("joiner"))}

    def meet(self, proof: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
        """Takes the inviter's proof; returns its certificate and what else its card says.

        Raises:
            WrongCodeError: it does not have the code.
        """
        assert self.keys is not None
        self.keys.check("inviter", bytes_in(proof, "confirm"))
        return self.keys.read_card("inviter", bytes_in(proof, "sealed"))


class Inviter:
    """The side that shows the code (side B); one for each connection."""

    def __init__(self, code: Code) -> None:
        from spake2 import SPAKE2_B

        self._pake = SPAKE2_B(_password(code))
        self._mine: bytes = self._pake.start()
        self.keys: Keys | None = None

    def answer(self, hello: dict[str, Any]) -> dict[str, Any]:
        """Takes the joiner's hello; returns the answer, which lets it try one code."""
        if hello.get("version") != VERSION:
            raise PairingError("the other device speaks another version of the pairing protocol")
        theirs = bytes_in(hello, "pake")
        self.keys = Keys(_finish(self._pake, theirs), _salt(theirs, self._mine))
        return {"pake": to_text(self._mine)}

    def prove(self, proof: dict[str, Any], identity: Identity, **more: Any) -> dict[str, Any]:
        """Takes the joiner's proof; returns this side's, and its card.

        Raises:
            WrongCodeError: the joiner does not have the code.
        """
        assert self.keys is not None
        self.keys.check("joiner", bytes_in(proof, "confirm"))
        card = self.keys.card(identity, "inviter", **more)
        return {"confirm": to_text(self.keys.confirmation("inviter")), "sealed": to_text(card)}


def _password(code: Code) -> bytes:
    # The nameplate is known to everybody, and binds the exchange to the invitation.
    return f"{code.nameplate}-{code.secret}".encode()


def _salt(first: bytes, second: bytes) -> bytes:
    return hashlib.sha256(first + second).digest()


def _finish(pake: Any, theirs: bytes) -> bytes:
    try:
        key: bytes = pake.finish(theirs)
    except Exception as error:  # spake2 raises whatever it happens upon where a point is bad
        raise PairingError("the other device sent a message that is no part of the exchange") from error
    return key


def to_text(data: bytes) -> str:
    """Bytes as JSON can hold them."""
    return base64.b64encode(data).decode()


def bytes_in(message: dict[str, Any], field: str) -> bytes:
    """Reads what `to_text` made from a field of a message."""
    try:
        return base64.b64decode(text_in(message, field), validate=True)
    except ValueError as error:
        raise PairingError(f"the other device sent a message whose {field} cannot be read") from error


def text_in(message: dict[str, Any], field: str) -> str:
    """Reads a text from a field of a message.

    Raises:
        PairingError: there is none.
    """
    value = message.get(field)
    if not isinstance(value, str):
        raise PairingError(f"the other device sent a message without {field}")
    return value
