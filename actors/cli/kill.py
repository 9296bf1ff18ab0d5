"""``actors kill``: ends an actor."""

from __future__ import annotations

import click

from actors.cli.word import Actor
from actors.observer import Observers, find_living


@click.command()
@click.argument("who", type=Actor())
@click.option("--restart", is_flag=True, help="Let it be made anew, if its max_restarts= allows it.")
def kill(who: str, restart: bool) -> None:
    """End the actor WHO at once, for good.

    WHO is its name, its id, the beginning of one, or its class where that has one actor only. What it was doing fails
    at its callers with ActorDiedError.

    \b
    Example:
      actors kill counter
      actors kill actor-3f9c0a12b7de --restart
    """  # noqa: D301 - click wants the character itself
    with Observers() as observers:
        try:
            observer, actor = find_living(who, observers)
        except LookupError as error:
            raise click.ClickException(str(error)) from error
        observer.end(actor, no_restart=not restart)
    click.echo(f"{actor.class_name} {actor.name or actor.id} has ended.")
