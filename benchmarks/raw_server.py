"""A gRPC server with an object behind it: ``python raw_server.py ADDRESS [unary|stream PEER]``.

It prints its address once it serves, and ends with its standard input. With a peer its object also has ``relay``,
which asks the peer's ``echo`` by the calls named.
"""

from __future__ import annotations

import os
import pickle
import queue
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
from raw_wire import OPTIONS, PROTOCOL, SERVICE, STREAM, UNARY, Joining, split
from target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Relay:
    """An object that asks another one."""

    def __init__(self, ask: Callable[[int], Any]) -> None:
        self._ask = ask

    def relay(self, value: int) -> Any:
        """Returns what the other object's echo returns."""
        return self._ask(value)


def by_unary(address: str) -> Callable[[int], Any]:
    """Returns the other object's echo, by unary calls."""
    call = grpc.insecure_channel(address, options=OPTIONS).unary_unary(f"/{SERVICE}/{UNARY}", None, None)
    return lambda value: pickle.loads(call(pickle.dumps(("echo", (value,)), PROTOCOL)))


def by_stream(address: str) -> Callable[[int], Any]:
    """Returns the other object's echo, by one stream."""
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    channel = grpc.insecure_channel(address, options=OPTIONS)
    answers = iter(channel.stream_stream(f"/{SERVICE}/{STREAM}", None, None)(iter(requests.get, None)))

    def ask(value: int) -> Any:
        for message in split(("echo", (value,))):
            requests.put(message)
        return _read(answers)

    return ask


def _read(messages: Iterator[bytes]) -> Any:
    joining = Joining(next(messages))
    while joining.missing:
        joining.add(next(messages))
    return joining.value()


def handlers(target: object) -> grpc.GenericRpcHandler[bytes, bytes]:
    """Returns what serves both kinds of calls with the methods of ``target``."""

    def run(request: Any) -> Any:
        method, args = request
        return getattr(target, method)(*args)

    def call(request: bytes, _: grpc.ServicerContext) -> bytes:
        return pickle.dumps(run(pickle.loads(request)), PROTOCOL)

    def talk(requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        while True:
            try:
                request = _read(requests)
            except StopIteration:
                return
            yield from split(run(request))

    return grpc.method_handlers_generic_handler(
        SERVICE,
        {UNARY: grpc.unary_unary_rpc_method_handler(call), STREAM: grpc.stream_stream_rpc_method_handler(talk)},
    )


def main() -> None:
    """Serves until standard input ends."""
    address, *peer = sys.argv[1:]
    target: object = Relay({"unary": by_unary, "stream": by_stream}[peer[0]](peer[1])) if peer else Target()
    server = grpc.server(ThreadPoolExecutor(4), options=OPTIONS)
    server.add_generic_rpc_handlers((handlers(target),))
    port = server.add_insecure_port(address)
    server.start()
    print(address if address.startswith("unix:") else f"127.0.0.1:{port}", flush=True)
    sys.stdin.read()
    os._exit(0)  # streams that are open would hold an orderly stop up


if __name__ == "__main__":
    main()
