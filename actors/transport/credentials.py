"""Mutual TLS between paired devices, as gRPC takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import grpc

from actors.certificate import check_profile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from actors.identity import Identity, TrustSet
    from actors.transport.options import Options


def server_credentials(
    identity: Identity, trust: TrustSet, knocked: Callable[[], None] | None = None
) -> grpc.ServerCredentials:
    """Credentials of a server that shows ``identity`` and lets only devices in ``trust`` connect.

    A change of ``trust`` counts from the next connection on. Connections that are up go on: ask ``peer_node_id``
    at every call, which knows of the change at once.

    Args:
        identity: this device's.
        trust: who may connect.
        knocked: called at each connection, before its handshake; on a thread of gRPC's, and must not raise.
    """

    # grpcio 1.80 refuses a configuration without any root and keeps the old one: the last device removed could
    # still connect. With this device's own certificate as the root nobody else can.
    def roots() -> bytes:
        return trust.bundle or identity.certificate

    def configuration(roots: bytes) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(identity.private_key, identity.certificate)], root_certificates=roots
        )

    known = roots()

    # Runs on a thread of gRPC's for each connection. If it raised, the old trust would stay in force.
    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal known
        if knocked is not None:
            knocked()
        now = roots()
        # gRPC (1.80 to 1.85 at least) frees the old configuration under the handshakes that still use it, and then
        # crashes: a new one is given only where there is news.
        if now == known:
            return None
        known = now
        return configuration(now)

    # None stands for "as before", which the stubs do not know.
    fetcher = cast("Callable[[], grpc.ServerCertificateConfiguration]", changed)
    return grpc.dynamic_ssl_server_credentials(configuration(known), fetcher, require_client_authentication=True)


def channel_credentials(identity: Identity, peer_certificate: bytes) -> tuple[grpc.ChannelCredentials, Options]:
    """What a channel needs to show ``identity`` and to accept the owner of ``peer_certificate`` (PEM) only.

    Returns:
        The credentials, and the options that must come with them: the certificate shows the peer's node id, never
        its address, so that without them no server is accepted.

    Raises:
        AuthenticationError: the peer's certificate is off the profile.
    """
    node_id = check_profile(peer_certificate)
    # The one root: with all trusted certificates here, one trusted device could answer in another's place.
    credentials = grpc.ssl_channel_credentials(
        root_certificates=peer_certificate,
        private_key=identity.private_key,
        certificate_chain=identity.certificate,
    )
    return credentials, (("grpc.ssl_target_name_override", node_id),)


def peer_node_id(auth_context: Mapping[str, Iterable[bytes]], trust: TrustSet) -> str | None:
    """The node id of the device at the other end of a call, by the key that it proved to have.

    Args:
        auth_context: what ``ServicerContext.auth_context()`` gives.
        trust: the devices trusted at present.

    Returns:
        None where the device is not trusted (any more), or the connection has no TLS.
    """
    leaf = next(iter(auth_context.get("x509_pem_cert", ())), None)
    return None if leaf is None else trust.node_id_of(leaf)
