"""Who gets through a door, over real gRPC servers on 127.0.0.1, and the options of channels and servers."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from actors.certificate import check_profile
from actors.exceptions import AuthenticationError
from actors.identity import Identity, TrustSet
from actors.transport import options
from actors.transport.credentials import channel_credentials, peer_node_id, server_credentials

ALICE, BOB, MALLORY = Identity.create(), Identity.create(), Identity.create()
PATH = "/test.Door/Call"
SOON = 10.0


class Door:
    """A server that says who called and keeps what reached it."""

    def __init__(self, trust: TrustSet) -> None:
        self.trust = trust
        self.reached: list[str | None] = []
        self.port = 0

    async def call(self, request: bytes, context) -> bytes:
        caller = peer_node_id(context.auth_context(), self.trust)
        self.reached.append(caller)
        if caller is None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "not a member")
        return f"{caller} {len(request)}".encode()

    async def talk(self, requests, context):
        async for request in requests:
            yield await self.call(request, context)


def handlers(door: Door) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler(
        "test.Door",
        {
            "Call": grpc.unary_unary_rpc_method_handler(door.call),
            "Talk": grpc.stream_stream_rpc_method_handler(door.talk),
        },
    )


@asynccontextmanager
async def serving(trust: TrustSet, credentials: grpc.ServerCredentials):
    door = Door(trust)
    server = grpc.aio.server(options=options.server_options())
    server.add_generic_rpc_handlers((handlers(door),))
    door.port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield door
    finally:
        await server.stop(None)


@asynccontextmanager
async def alices_door(*trusted: Identity):
    trust = TrustSet(identity.certificate for identity in trusted)
    async with serving(trust, server_credentials(ALICE, trust)) as door:
        yield door


def dial(door: Door, credentials: grpc.ChannelCredentials, extra: options.Options = ()) -> grpc.aio.Channel:
    return grpc.aio.secure_channel(f"127.0.0.1:{door.port}", credentials, options=(*options.channel_options(), *extra))


async def call(door: Door, credentials: grpc.ChannelCredentials, extra: options.Options = (), size: int = 0) -> str:
    async with dial(door, credentials, extra) as channel:
        answer = await channel.unary_unary(PATH)(bytes(size), timeout=SOON)
    return bytes(answer).decode()


async def refused(door: Door, credentials: grpc.ChannelCredentials, extra: options.Options = ()) -> str:
    """The reason why a call never reached the handler."""
    before = len(door.reached)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(door, credentials, extra)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert len(door.reached) == before
    return caught.value.details() or ""


def raw(peer: bytes, key: bytes | None = None, chain: bytes | None = None, name: str = ALICE.node_id):
    """What a client shows that does not keep to our rules."""
    credentials = grpc.ssl_channel_credentials(root_certificates=peer, private_key=key, certificate_chain=chain)
    return credentials, (("grpc.ssl_target_name_override", name),)


def mint(signer: Identity, victim: str, *, ca: bool = False) -> tuple[bytes, bytes]:
    """A key and a certificate in the victim's name, signed by ``signer``."""
    key = ec.generate_private_key(ec.SECP256R1())
    signing_key = serialization.load_pem_private_key(signer.private_key, None)
    assert isinstance(signing_key, ec.EllipticCurvePrivateKey)
    issuer = x509.load_pem_x509_certificate(signer.certificate)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, victim)]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2000, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(9999, 12, 31, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(victim)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False)
        .sign(signing_key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)


# --- who gets in


def test_a_paired_device_is_known_by_its_node_id():
    async def scenario():
        async with alices_door(BOB, MALLORY) as door:
            assert await call(door, *channel_credentials(BOB, ALICE.certificate)) == f"{BOB.node_id} 0"
            assert await call(door, *channel_credentials(MALLORY, ALICE.certificate)) == f"{MALLORY.node_id} 0"

    asyncio.run(scenario())


def test_a_stranger_never_reaches_the_handler():
    async def scenario():
        async with alices_door(BOB) as door:
            started = time.monotonic()
            await refused(door, *channel_credentials(MALLORY, ALICE.certificate))
            await refused(door, *raw(ALICE.certificate))  # shows no certificate
            await refused(door, *raw(ALICE.certificate, MALLORY.private_key, MALLORY.certificate + BOB.certificate))
            assert time.monotonic() - started < 5
            async with grpc.aio.insecure_channel(f"127.0.0.1:{door.port}") as plain:
                with pytest.raises(grpc.aio.AioRpcError):
                    await plain.unary_unary(PATH)(b"", timeout=SOON)
            assert door.reached == []
            assert await call(door, *channel_credentials(BOB, ALICE.certificate)) == f"{BOB.node_id} 0"

    asyncio.run(scenario())


@pytest.mark.parametrize("victim", [ALICE, BOB], ids=["the server itself", "another member"])
def test_what_a_member_mints_for_a_client_is_refused(victim):
    async def scenario():
        async with alices_door(BOB, MALLORY) as door:
            for ca in (False, True):
                key, certificate = mint(MALLORY, victim.node_id, ca=ca)
                await refused(door, *raw(ALICE.certificate, key, certificate))
                await refused(door, *raw(ALICE.certificate, key, certificate + MALLORY.certificate))
                await refused(door, *raw(ALICE.certificate, key, certificate + victim.certificate))
                with pytest.raises(AuthenticationError):
                    check_profile(certificate)
            assert door.reached == []

    asyncio.run(scenario())


def test_what_a_member_mints_is_nobody_even_behind_a_careless_server():
    # A root that may sign lets the minted certificate through TLS; the name still comes from the key.
    key, authority = mint(MALLORY, MALLORY.node_id, ca=True)
    careless = Identity(MALLORY.node_id, authority, key)
    minted_key, minted = mint(careless, BOB.node_id)
    credentials = grpc.ssl_server_credentials([(ALICE.private_key, ALICE.certificate)], authority, True)

    async def scenario():
        async with serving(TrustSet([BOB.certificate, MALLORY.certificate]), credentials) as door:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(door, *raw(ALICE.certificate, minted_key, minted))
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert door.reached == [None]

    asyncio.run(scenario())


def test_what_a_member_mints_for_a_server_is_refused():
    key, certificate = mint(MALLORY, ALICE.node_id)

    async def scenario():
        for chain in (certificate, certificate + MALLORY.certificate, certificate + ALICE.certificate):
            credentials = grpc.ssl_server_credentials([(key, chain)], BOB.certificate, True)
            async with serving(TrustSet([BOB.certificate]), credentials) as door:
                assert "CERTIFICATE_VERIFY_FAILED" in await refused(door, *channel_credentials(BOB, ALICE.certificate))

    asyncio.run(scenario())


def test_a_server_with_another_key_is_refused():
    async def scenario():
        trust = TrustSet([BOB.certificate])
        async with serving(trust, server_credentials(MALLORY, trust)) as door:
            reason = await refused(door, *channel_credentials(BOB, ALICE.certificate))
            assert "CERTIFICATE_VERIFY_FAILED" in reason
            # Right key, another name asked for.
            await refused(door, *raw(MALLORY.certificate, BOB.private_key, BOB.certificate))

    asyncio.run(scenario())


def test_without_its_options_a_channel_accepts_no_server():
    async def scenario():
        async with alices_door(BOB) as door:
            await refused(door, channel_credentials(BOB, ALICE.certificate)[0])

    asyncio.run(scenario())


def test_a_peer_certificate_off_the_profile_is_refused_before_dialling():
    _, minted = mint(MALLORY, ALICE.node_id)
    for certificate in (minted, ALICE.certificate + MALLORY.certificate, b""):
        with pytest.raises(AuthenticationError):
            channel_credentials(BOB, certificate)


def test_no_tls_is_nobody():
    assert peer_node_id({}, TrustSet([BOB.certificate])) is None
    assert peer_node_id({"x509_pem_cert": []}, TrustSet([BOB.certificate])) is None


# --- trust that changes


def test_trust_changes_while_the_door_is_open():
    async def scenario():
        async with alices_door() as door:
            bob = channel_credentials(BOB, ALICE.certificate)
            await refused(door, *bob)
            door.trust.add(BOB.certificate)
            assert await call(door, *bob) == f"{BOB.node_id} 0"

            async with dial(door, *bob) as channel:
                talk = channel.stream_stream("/test.Door/Talk")(timeout=SOON)
                await talk.write(b"x")
                assert await talk.read() == f"{BOB.node_id} 1".encode()
                # The last one removed: an empty set lets nobody in, and is not taken for "no change".
                door.trust.remove(BOB.node_id)
                await refused(door, *bob)
                await refused(door, *bob)
                # The connection that is up goes on, but from the next message on its other end is nobody.
                await talk.write(b"x")
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await talk.read()
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED

            door.trust.replace([MALLORY.certificate])
            await refused(door, *bob)
            assert await call(door, *channel_credentials(MALLORY, ALICE.certificate)) == f"{MALLORY.node_id} 0"

    asyncio.run(scenario())


def tls_client(identity: Identity, server: Identity) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=server.certificate.decode())
    with tempfile.NamedTemporaryFile() as pem:
        pem.write(identity.certificate + identity.private_key)
        pem.flush()
        context.load_cert_chain(pem.name)
    context.set_alpn_protocols(["h2"])
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # where the handshake's end tells whether it was accepted
    return context


def test_a_session_ticket_outlives_no_trust():
    context = tls_client(BOB, ALICE)

    def connect(port: int, ticket: ssl.SSLSession | None) -> ssl.SSLSession | None:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=SOON) as plain,
            context.wrap_socket(plain, server_hostname=ALICE.node_id, session=ticket) as secure,
        ):
            return secure.session

    async def scenario():
        async with alices_door(BOB) as door:
            ticket = await asyncio.to_thread(connect, door.port, None)
            assert ticket is not None
            await asyncio.to_thread(connect, door.port, ticket)
            door.trust.remove(BOB.node_id)
            for shown in (ticket, None):
                with pytest.raises((ssl.SSLError, ConnectionResetError)):
                    await asyncio.to_thread(connect, door.port, shown)

    asyncio.run(scenario())


# --- options


def test_large_messages_pass():
    async def scenario():
        size = 6 * 2**20
        async with alices_door(BOB) as door:
            assert await call(door, *channel_credentials(BOB, ALICE.certificate), size=size) == f"{BOB.node_id} {size}"

    asyncio.run(scenario())


def test_two_servers_never_share_a_port():
    async def scenario():
        async with alices_door(BOB) as door:
            second = grpc.aio.server(options=options.server_options())
            with pytest.raises(RuntimeError, match="Failed to bind"):
                second.add_secure_port(f"127.0.0.1:{door.port}", server_credentials(BOB, TrustSet()))
            await second.stop(None)

    asyncio.run(scenario())


def test_a_connection_that_proves_nothing_is_closed():
    async def scenario():
        async with alices_door(BOB) as door:
            reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
            started = time.monotonic()
            async with asyncio.timeout(20):
                assert await reader.read() == b""
            assert time.monotonic() - started < 8
            writer.close()
            await writer.wait_closed()

    asyncio.run(scenario())


def test_a_unix_socket_takes_its_options():
    async def scenario():
        with tempfile.TemporaryDirectory(prefix="a", dir="/tmp") as folder:
            server = grpc.aio.server(options=options.unix_server_options())
            door = Door(TrustSet())
            server.add_generic_rpc_handlers((handlers(door),))
            server.add_insecure_port(f"unix:{folder}/s")
            await server.start()
            async with grpc.aio.insecure_channel(f"unix:{folder}/s", options=options.unix_channel_options()) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary(PATH)(bytes(6 * 2**20), timeout=SOON)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert door.reached == [None]
            await server.stop(None)

    asyncio.run(scenario())


STOPPABLE = """
import asyncio, sys
import grpc
from actors.transport import options

async def talk(requests, context):
    async for request in requests:
        yield request

async def main():
    server = grpc.aio.server(options=options.server_options())
    handler = grpc.stream_stream_rpc_method_handler(talk)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Door", {"Talk": handler}),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)

asyncio.run(main())
"""


@pytest.mark.parametrize("sent", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_peer_that_went_silent_is_noticed(sent):
    async def scenario(process):
        port = int(await asyncio.to_thread(process.stdout.readline))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options.channel_options()) as channel:
            talk = channel.stream_stream("/test.Door/Talk")()
            await talk.write(b"x")
            assert await talk.read() == b"x"
            process.send_signal(sent)
            started = time.monotonic()
            with pytest.raises(grpc.aio.AioRpcError):
                async with asyncio.timeout(20):
                    await talk.read()
            assert time.monotonic() - started < 8  # 4 s by the options, and what a busy machine adds

    command = [sys.executable, "-c", STOPPABLE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            asyncio.run(scenario(process))
        finally:
            process.kill()
