"""The gRPC options of every channel and server here, and why each is what it is."""

from __future__ import annotations

Options = tuple[tuple[str, int | str], ...]

MAX_MESSAGE_BYTES = 2**31 - 1
"""Largest message taken or sent: protobuf's own bound. The runtime cuts payloads into chunks long before."""

_SIZES: Options = (
    # gRPC's own 4 MiB would refuse a tensor in one of the five collective calls.
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)

_KEEP_ALIVE: Options = (
    # A cut is noticed in about 4 s. The third is what makes it so: without it a stopped peer takes a minute.
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 2000),
    ("grpc.http2.ping_timeout_ms", 2000),
    # Pings go on while no call is open and while no data flows.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)

_SERVER: Options = (
    *_SIZES,
    # A handle's holder has one stream, but collective calls of any gRPC client come one a call.
    ("grpc.max_concurrent_streams", 10_000),
)

_CHANNEL: Options = (
    *_SIZES,
    # A failed dial's back-off would otherwise hit the next channel to the same address.
    ("grpc.use_local_subchannel_pool", 1),
    # A call sent twice runs twice; the session knows what to send again.
    ("grpc.enable_retries", 0),
    # How long one dial may take at least; all dials stop at once when one succeeds.
    ("grpc.min_reconnect_backoff_ms", 1000),
)


def server_options() -> Options:
    """Of a server on a TCP port."""
    return (
        *_SERVER,
        *_KEEP_ALIVE,
        # Peers ping every 2 s; the defaults answer that with GOAWAY too_many_pings after 10 s.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
        ("grpc.http2.max_ping_strikes", 0),
        # Two servers would share one port silently, each with some of the calls.
        ("grpc.so_reuseport", 0),
        # A connection that proves nothing lives for two minutes otherwise.
        ("grpc.server_handshake_timeout_ms", 5000),
    )


def channel_options() -> Options:
    """Of a channel to a TCP port; over TLS, those of ``credentials.channel_credentials`` come on top."""
    return (
        *_CHANNEL,
        *_KEEP_ALIVE,
        # Peers are on the LAN; a proxy set for the web would get the traffic, or break it.
        ("grpc.enable_http_proxy", 0),
        # A peer that comes back is reached within about a second.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # Of several addresses of one peer, some are dead: try the next one soon.
        ("grpc.happy_eyeballs_connection_attempt_delay_ms", 100),
    )


def unix_server_options() -> Options:
    """Of a server on a Unix socket, where the kernel closes connections with their process: no keep-alive."""
    return _SERVER


def unix_channel_options() -> Options:
    """Of a channel to a Unix socket."""
    return (
        *_CHANNEL,
        # A process that is just starting listens within milliseconds, and no network suffers from another try.
        ("grpc.initial_reconnect_backoff_ms", 20),
        ("grpc.max_reconnect_backoff_ms", 200),
    )
