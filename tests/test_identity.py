"""A device's identity, the certificates that are refused, and the set of those trusted."""

from __future__ import annotations

import base64
import hashlib
import re
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.certificate import check_profile, node_id_of, self_signed
from actors.exceptions import ActorsError, AuthenticationError
from actors.home import locked
from actors.identity import Identity, TrustSet
from actors.membership import credentials_from
from actors.transport.link import GoneError

ALICE, BOB = Identity.create(), Identity.create()
DIGITAL_SIGNATURE = {"digital_signature": True} | dict.fromkeys(
    [
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    ],
    False,
)
BOTH = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
FIRST, LAST = datetime(2000, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def id_of(key) -> str:
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b32encode(hashlib.sha256(spki).digest()).decode().lower().strip("=")


def make(
    key=None,
    *,
    signer=None,
    subject=None,
    issuer=None,
    names=None,
    ca=False,
    usage=(),
    purposes=BOTH,
    first=FIRST,
    last=LAST,
    digest=hashes.SHA256,
    uncritical=(),
    without=(),
    extra=(),
) -> bytes:
    """A certificate of the profile, with the differences given."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    signer = signer or key
    own = id_of(key)
    named = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in (subject or own, issuer or own)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(named[0])
        .issuer_name(named[1])
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(first)
        .not_valid_after(last)
    )
    extensions = [
        (x509.BasicConstraints(ca=ca, path_length=None), True),
        (x509.KeyUsage(**DIGITAL_SIGNATURE | dict.fromkeys(usage, True)), True),
        (x509.ExtendedKeyUsage(purposes), False),
        (x509.SubjectAlternativeName([x509.DNSName(name) for name in names or [own]]), False),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False),
        *extra,
    ]
    for value, critical in extensions:
        if type(value) not in without:
            builder = builder.add_extension(value, critical=critical and type(value) not in uncritical)
    return builder.sign(signer, digest() if digest else None).public_bytes(serialization.Encoding.PEM)


# --- the certificate


def test_the_node_id_is_the_hash_of_the_key():
    key = serialization.load_pem_private_key(ALICE.private_key, None)
    assert ALICE.node_id == id_of(key)
    assert re.fullmatch("[a-z2-7]{52}", ALICE.node_id)
    assert node_id_of(ALICE.certificate) == check_profile(ALICE.certificate) == ALICE.node_id
    assert ALICE.node_id != BOB.node_id


def test_the_certificate_follows_the_profile():
    read = x509.load_pem_x509_certificate(ALICE.certificate)
    common = [attribute.value for attribute in read.subject]
    assert common == [ALICE.node_id]
    assert read.issuer == read.subject
    assert (read.not_valid_before_utc, read.not_valid_after_utc) == (FIRST, LAST)
    found = {type(extension.value): extension for extension in read.extensions}
    assert len(found) == 6
    assert found[x509.SubjectAlternativeName].value.get_values_for_type(x509.DNSName) == [ALICE.node_id]
    assert found[x509.BasicConstraints].critical
    assert not found[x509.BasicConstraints].value.ca
    assert found[x509.KeyUsage].critical
    assert found[x509.KeyUsage].value == x509.KeyUsage(**DIGITAL_SIGNATURE)
    assert list(found[x509.ExtendedKeyUsage].value) == BOTH
    assert found[x509.SubjectKeyIdentifier].value.digest == found[x509.AuthorityKeyIdentifier].value.key_identifier


def test_the_key_stays_out_of_sight():
    assert "PRIVATE" not in repr(ALICE)
    with pytest.raises(AttributeError):
        ALICE.node_id = "other"


def test_another_maker_can_follow_the_profile():
    key = ec.generate_private_key(ec.SECP256R1())
    assert check_profile(make(key)) == id_of(key)


EDWARDS = ed25519.Ed25519PrivateKey.generate()
BOBS_KEY = serialization.load_pem_private_key(BOB.private_key, None)
OFF_PROFILE = {
    "authority": (lambda: make(ca=True), "BasicConstraints"),
    "uncritical constraints": (lambda: make(uncritical=[x509.BasicConstraints]), "BasicConstraints"),
    "no constraints": (lambda: make(without=[x509.BasicConstraints]), "BasicConstraints is missing"),
    "may sign others": (lambda: make(usage=["key_cert_sign"]), "KeyUsage"),
    "other usage": (lambda: make(usage=["key_agreement"]), "KeyUsage"),
    "no usage": (lambda: make(without=[x509.KeyUsage]), "KeyUsage"),
    "uncritical usage": (lambda: make(uncritical=[x509.KeyUsage]), "KeyUsage"),
    "server only": (lambda: make(purposes=BOTH[:1]), "ExtendedKeyUsage"),
    "any purpose": (lambda: make(purposes=[*BOTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), "ExtendedKeyUsage"),
    "another's subject": (lambda: make(subject=ALICE.node_id), "subject"),
    "another's issuer": (lambda: make(issuer=ALICE.node_id), "issued by another"),
    "another's name": (lambda: make(names=[ALICE.node_id]), "SubjectAlternativeName"),
    "one more name": (lambda: make(BOBS_KEY, names=[BOB.node_id, ALICE.node_id]), "SubjectAlternativeName"),
    "signed by another": (lambda: make(signer=BOBS_KEY), "AuthorityKeyIdentifier"),
    "no key identifier": (lambda: make(without=[x509.SubjectKeyIdentifier]), "SubjectKeyIdentifier"),
    "one more extension": (
        lambda: make(extra=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"x"), False)]),
        "does not belong there: UnrecognizedExtension",
    ),
    "starts late": (lambda: make(first=datetime(2020, 1, 1, tzinfo=UTC)), "2000 to 9999"),
    "ends": (lambda: make(last=datetime(2040, 1, 1, tzinfo=UTC)), "2000 to 9999"),
    "other curve": (lambda: make(ec.generate_private_key(ec.SECP384R1())), "P-256"),
    "Ed25519": (lambda: make(EDWARDS, digest=None), "P-256"),
    "RSA": (lambda: make(rsa.generate_private_key(65537, 2048)), "P-256"),
    "other hash": (lambda: make(digest=hashes.SHA384), "SHA-256"),
    "two certificates": (lambda: ALICE.certificate + BOB.certificate, "more than one"),
    "text around it": (lambda: b"# mine\n" + ALICE.certificate, "around it"),
    "a key too": (lambda: ALICE.certificate + ALICE.private_key, "around it"),
    "key alone": (lambda: ALICE.private_key, "cannot be parsed"),
    "nothing": (lambda: b"", "cannot be parsed"),
    "huge": (lambda: ALICE.certificate * 10, "more than 4096"),
}


@pytest.mark.parametrize("case", OFF_PROFILE)
def test_whatever_is_off_the_profile_is_refused_with_its_reason(case):
    certificate, reason = OFF_PROFILE[case]
    with pytest.raises(AuthenticationError, match=f"certificate refused: .*{reason}"):
        check_profile(certificate())


def test_a_forged_signature_is_refused():
    der = x509.load_pem_x509_certificate(ALICE.certificate).public_bytes(serialization.Encoding.DER)
    forged = x509.load_der_x509_certificate(der[:-1] + bytes([der[-1] ^ 1])).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(AuthenticationError, match="not signed by its own key"):
        check_profile(forged)


def test_a_signature_that_counts_unused_bits_is_refused():
    key = ec.generate_private_key(ec.SECP256R1())
    while (der := self_signed(key).public_bytes(serialization.Encoding.DER))[-1] & 1:
        pass  # only a signature that ends in a zero bit can be written in two ways
    count = len(der) - len(x509.load_der_x509_certificate(der).signature) - 1
    second = x509.load_der_x509_certificate(der[:count] + b"\1" + der[count + 1 :])
    with pytest.raises(AuthenticationError, match="whole number of bytes"):
        check_profile(second.public_bytes(serialization.Encoding.PEM))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_changed_byte_gives_another_device(data):
    der = bytearray(x509.load_pem_x509_certificate(ALICE.certificate).public_bytes(serialization.Encoding.DER))
    place = data.draw(st.integers(0, len(der) - 1))
    der[place] ^= data.draw(st.integers(1, 255))
    text = base64.encodebytes(bytes(der)).replace(b"\n", b"")
    lines = b"\n".join(text[start : start + 64] for start in range(0, len(text), 64))
    with pytest.raises(AuthenticationError):
        check_profile(b"-----BEGIN CERTIFICATE-----\n" + lines + b"\n-----END CERTIFICATE-----\n")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_no_certificate(noise):
    framed = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(noise) + b"\n-----END CERTIFICATE-----\n"
    for text in (noise, framed):
        with pytest.raises(AuthenticationError):
            check_profile(text)
        with pytest.raises(AuthenticationError):
            node_id_of(text)


# --- on disk


def test_save_and_load(tmp_path):
    folder = tmp_path / "deep" / "identity"
    ALICE.save(folder)
    assert Identity.load(folder) == ALICE == Identity.load_or_create(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    BOB.save(folder)
    assert Identity.load(folder) == BOB


def test_load_without_an_identity_says_where_it_looked(tmp_path):
    with pytest.raises(ActorsError, match=r"identity\.pem: No such file"):
        Identity.load(tmp_path)


def test_a_key_that_others_can_read_is_refused(tmp_path):
    ALICE.save(tmp_path / "identity")
    (tmp_path / "identity" / "identity.pem").chmod(0o640)
    with pytest.raises(ActorsError, match=r"open to other users \(mode 0640\).*chmod 600"):
        Identity.load_or_create(tmp_path / "identity")


def test_a_folder_that_others_can_enter_is_refused(tmp_path):
    (tmp_path / "identity").mkdir()
    (tmp_path / "identity").chmod(0o750)
    for use in (Identity.load_or_create, ALICE.save, TrustSet().save):
        with pytest.raises(ActorsError, match="open to others"):
            use(tmp_path / "identity")


DAMAGED = {
    "empty": b"",
    "cut": (ALICE.certificate + ALICE.private_key)[:-60],
    "no key": ALICE.certificate,
    "no certificate": ALICE.private_key,
    "another's key": ALICE.certificate + BOB.private_key,
    "another kind of key": ALICE.certificate
    + EDWARDS.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ),
    "off the profile": make(BOBS_KEY, ca=True) + BOB.private_key,
    "noise": bytes(range(256)) * 100,
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_identity_is_named_and_never_replaced(tmp_path, case):
    ALICE.save(tmp_path / "identity")
    path = tmp_path / "identity" / "identity.pem"
    path.write_bytes(DAMAGED[case])
    with pytest.raises(ActorsError, match=r"identity\.pem is damaged .*restore the file"):
        Identity.load_or_create(tmp_path / "identity")
    assert path.read_bytes() == DAMAGED[case]


def test_what_asks_at_once_gets_the_same_identity(tmp_path):
    program = """
import sys
from pathlib import Path
from actors.identity import Identity
import cryptography.x509
sys.stdin.read(1)
print(Identity.load_or_create(Path(sys.argv[1])).node_id)
"""
    command = [sys.executable, "-W", "error", "-c", program, str(tmp_path / "identity")]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(Identity.load_or_create(tmp_path / "identity").node_id))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    found += [process.communicate("x", timeout=60)[0].strip() for process in processes]
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert set(found) == {Identity.load(tmp_path / "identity").node_id}


def test_a_killed_writer_leaves_nothing_that_harms(tmp_path):
    folder = tmp_path / "identity"
    folder.mkdir(mode=0o700)
    (folder / "identity.pem.new").write_bytes(ALICE.certificate[:100])
    made = Identity.load_or_create(folder)
    assert Identity.load(folder) == made
    assert sorted(path.name for path in folder.iterdir()) == ["identity.pem", "lock"]


def test_a_folder_is_free_again_after_use(tmp_path):
    Identity.load_or_create(tmp_path / "identity")
    with locked(tmp_path / "identity" / "lock", timeout=0):
        pass


# --- trust


def test_a_trust_set_knows_by_key():
    trust = TrustSet([ALICE.certificate])
    assert dict(trust) == {ALICE.node_id: ALICE.certificate}
    assert trust.node_id_of(ALICE.certificate) == ALICE.node_id
    assert trust.node_id_of(BOB.certificate) is None
    assert trust.node_id_of(b"noise") is None
    # Bob's key under Alice's name is Bob.
    minted = make(BOBS_KEY, subject=ALICE.node_id, issuer=ALICE.node_id, names=[ALICE.node_id])
    assert trust.node_id_of(minted) is None
    trust.add(BOB.certificate)
    assert trust.node_id_of(minted) == BOB.node_id


def test_trust_changes_at_once():
    trust = TrustSet()
    assert not trust
    assert trust.bundle == b""
    assert trust.add(ALICE.certificate) == ALICE.node_id
    trust.add(ALICE.certificate)
    assert trust.bundle == ALICE.certificate
    trust.add(BOB.certificate)
    assert trust.bundle.count(b"BEGIN CERTIFICATE") == len(trust) == 2
    assert trust.bundle is trust.bundle  # of a thousand devices it is a megabyte
    trust.remove(ALICE.node_id)
    trust.remove(ALICE.node_id)
    assert list(trust) == [BOB.node_id]
    assert trust.node_id_of(ALICE.certificate) is None
    trust.replace([ALICE.certificate])
    assert list(trust) == [ALICE.node_id]


def test_a_bad_certificate_leaves_the_set_as_it_was():
    trust = TrustSet([ALICE.certificate])
    for change in (trust.add, lambda pem: trust.replace([BOB.certificate, pem]), lambda pem: TrustSet([pem])):
        with pytest.raises(AuthenticationError):
            change(make(ca=True))
    assert list(trust) == [ALICE.node_id]


def test_trust_on_disk_is_exactly_the_set(tmp_path):
    folder = tmp_path / "trust"
    assert not TrustSet.load(folder)
    trust = TrustSet([ALICE.certificate, BOB.certificate])
    trust.save(folder)
    assert dict(TrustSet.load(folder)) == dict(trust)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    trust.remove(BOB.node_id)
    trust.save(folder)
    assert list(TrustSet.load(folder)) == [ALICE.node_id]


def test_a_bad_file_is_named(tmp_path):
    folder = tmp_path / "trust"
    TrustSet([ALICE.certificate]).save(folder)
    (folder / "laptop.pem").write_bytes(make(ca=True))
    with pytest.raises(ActorsError, match=r"laptop\.pem cannot be trusted \(certificate refused: its Basic"):
        TrustSet.load(folder)


def test_trust_may_change_under_its_readers():
    others = [Identity.create() for _ in range(4)]
    trust = TrustSet([ALICE.certificate])
    ended = threading.Event()
    torn = []

    def read() -> None:
        while not ended.is_set():
            if not trust.bundle.startswith(b"-----BEGIN") or trust.node_id_of(ALICE.certificate) != ALICE.node_id:
                torn.append(trust.bundle)

    reader = threading.Thread(target=read)
    reader.start()

    def change(other: Identity) -> None:
        for _ in range(20):
            trust.add(other.certificate)
            trust.remove(other.node_id)
        trust.add(other.certificate)

    threads = [threading.Thread(target=change, args=(other,)) for other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ended.set()
    reader.join()
    assert not torn
    assert len(trust) == 5


def test_a_device_that_is_not_trusted_is_not_dialled(tmp_path):
    tmp_path.chmod(0o700)
    ALICE.save(tmp_path)
    TrustSet([ALICE.certificate]).save(tmp_path / "trust")
    credentials_for = credentials_from(tmp_path)
    with pytest.raises(GoneError, match=f"device {BOB.node_id} is not trusted by this one"):
        credentials_for(BOB.node_id)
    assert credentials_for(ALICE.node_id)
