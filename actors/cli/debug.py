"""``actors debug``: a debugger at an actor, from a terminal."""

from __future__ import annotations

import contextlib

import click

from actors.cli.word import Actor
from actors.exceptions import ActorsError
from actors.observer import Observers, find_living


@click.command()
@click.argument("who", type=Actor())
@click.argument("method", required=False)
def debug(who: str, method: str | None) -> None:
    """Attach pdb to the actor WHO: commands are typed here, and run where the actor is.

    It stops in what the actor runs just now, at the breakpoint() that it stands at or, where it runs nothing, in the
    next call that anybody makes; with METHOD, in the next call of that one. The command q, Ctrl-C and the end of this
    terminal let it go on without the debugger. While it stands at the prompt the actor does nothing else.

    \b
    Example:
      actors debug counter
      actors debug counter add
    """  # noqa: D301 - click wants the character itself
    from actors.attaching import converse

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - the prompt gets a history, and keys that edit the line
    with Observers() as observers:
        try:
            observer, actor = find_living(who, observers)
        except LookupError as error:
            raise click.ClickException(str(error)) from error
        label = f"{actor.class_name} {actor.name or actor.id} on node {actor.node}"
        try:
            converse(observer.debugger(actor), label, method)
        except ActorsError as error:
            raise click.ClickException(f"{label}: {error}") from error
