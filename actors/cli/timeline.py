"""``actors timeline``: what has happened, as a file that Perfetto opens."""

from __future__ import annotations

from pathlib import Path

import click

from actors.observer import Observers
from actors.perfetto import write


@click.command()
@click.argument("path", type=click.Path(dir_okay=False, writable=True, path_type=Path), default="timeline.json")
def timeline(path: Path) -> None:
    """Write what has happened as PATH, a trace in Chrome's format; open it at ui.perfetto.dev or chrome://tracing.

    With several clusters on this device, each gets a file of its own, with a number before the ending.

    \b
    Example:
      actors timeline
      actors timeline /tmp/slow.json
    """  # noqa: D301 - click wants the character itself
    with Observers() as observers:
        for number, observer in enumerate(observers):
            place = path if len(observers) == 1 else path.with_name(f"{path.stem}-{number + 1}{path.suffix}")
            try:
                events = write(observer, place)
            except OSError as error:
                raise click.ClickException(f"{place} cannot be written: {error.strerror}") from error
            calls = sum(event["ph"] == "X" and event["cat"] == "call" for event in events)
            click.echo(f"{place}: {calls} calls of {observer.label}")
