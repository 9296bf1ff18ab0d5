"""Attaching a debugger to an actor, from a terminal or a notebook; see `actors.debugging` for the other end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from actors.cluster import joined
from actors.exceptions import ActorError
from actors.handle import ActorHandle, RemoteMethod, handle_of, line_of
from actors.refs import ObjectRef, get

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.address import Address
    from actors.process import Process

ASK_SECONDS = 10.0
READ_SECONDS = 0.5
PROMPT = "(Pdb) "


def debug(what: ActorHandle[Any] | RemoteMethod[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Attaches pdb to an actor: reads commands here, and runs them where the actor is.

    ``actors.debug(handle)`` stops in what the actor runs just now or, where it runs nothing, in the next call that
    anybody makes; also at a ``breakpoint()`` that the actor stands at. ``actors.debug(handle.method, 1, 2)`` makes that
    call itself, stops at its beginning, and returns its value. The command ``q``, and Ctrl-C while the method runs, let
    it go on without the debugger.

    Args:
        what: an actor's handle, or a method of one.
        args: arguments of the call.
        kwargs: likewise.

    Raises:
        TypeError: ``what`` is neither, or a handle with arguments.
        ActorError: the actor is gone.
        ActorsError: another debugger is attached.
    """
    if isinstance(what, RemoteMethod):
        return _debug_call(what, args, kwargs)
    if args or kwargs:
        raise TypeError("arguments are for a method: actors.debug(handle.method, …)")
    process = joined()
    line = line_of(handle_of(what))
    address = process.portal.run(line.located())
    _session(process, address, line.actor, None, None)
    return None


def _debug_call(method: RemoteMethod[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    process = joined()
    line = line_of(method.handle)
    address = process.portal.run(line.located())
    given: list[Any] = []
    _session(process, address, line.actor, method.name, lambda: given.append(method.remote(*args, **kwargs)))
    (ref,) = given
    return get(ref) if isinstance(ref, ObjectRef | list) else ref


def _session(
    process: Process, address: Address, actor: str, method: str | None, begin: Callable[[], object] | None
) -> None:
    there = address.host_process

    def ask(what: str, *args: Any) -> Any:
        return process.portal.run(process.ask(there, "debugger", what, actor, *args, timeout=ASK_SECONDS))

    converse(ask, f"{actor} on node {address.node_name}", method, begin)


def converse(
    ask: Callable[..., Any], label: str, method: str | None = None, begin: Callable[[], object] | None = None
) -> None:
    """Attaches pdb to an actor, and reads its commands here until the method goes on by itself.

    Args:
        ask: has the debugger there do something, see `actors.debugging.Debugger`.
        label: of the actor, for people.
        method: to stop at; None stops in what runs, or in the next call.
        begin: makes the call to stop at; None waits for somebody's.

    Raises:
        ActorsError: another debugger is attached, or the actor has no such method.
    """
    does = ask("attach", method)
    try:
        if begin is None:
            print(f"Attached to {label}, which {does}. h is for help, q lets it go on.", flush=True)
        else:
            begin()
        while True:
            text, state = ask("read", READ_SECONDS)
            text = text.removesuffix(PROMPT) if state == "prompt" else text
            if text:
                print(text, end="", flush=True)
            if state == "ended":
                return
            if state == "prompt":
                ask("command", _line())
    except ActorError as error:
        print(f"The actor has ended: {error}", file=sys.stderr)
    except BaseException:
        ask("detach")
        raise


def _line() -> str:
    try:
        return f"{input(PROMPT)}\n"
    except EOFError:
        return "q\n"
