"""``actors logs``: what actors print."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from actors.cli.table import paint, say
from actors.cli.word import Actor, Word
from actors.observer import Observers, find

if TYPE_CHECKING:
    from collections.abc import Callable

LINES = 200
POLL_SECONDS = 0.5


@click.command()
@click.argument("who", type=Actor(), required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is printed from now on, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(0, 1_000_000), default=LINES, show_default=True,
              help="Of each actor, from the end.")  # fmt: skip
@click.option("--node", help="Of actors on this node only.")
@click.option("--class", "class_name", help="Of actors of this class only.")
@click.option("--pid", type=int, help="Of the process with this number only.")
@click.option("--stream", type=Word("stdout", "stderr"), help="Of this stream only.")
@click.option("--grep", metavar="PATTERN", help="Lines in which this regular expression is found.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list; with --follow, a JSON object a line.")
def logs(  # noqa: PLR0917 - one for each option
    who: str | None,
    follow: bool,
    lines: int,
    node: str | None,
    class_name: str | None,
    pid: int | None,
    stream: str | None,
    grep: str | None,
    as_json: bool,
) -> None:
    """Show what actors have printed, of all nodes, by time; WHO is an actor's name or id, and none means all.

    Of nodes and programs that have ended, files are kept in the log folder of this device.

    \b
    Example:
      actors logs counter
      actors logs -f --class Trainer --grep 'loss|error'
    """  # noqa: D301 - click wants the character itself
    try:
        pattern = re.compile(grep) if grep is not None else None
    except re.error as error:
        raise click.BadParameter(f"{grep!r} is no regular expression: {error}", param_hint="--grep") from error

    def wanted(line: dict[str, Any]) -> bool:
        return (
            (who is None or who in {line["actor"], line["name"]} or (line["actor"] or "").startswith(f"actor-{who}"))
            and (node is None or line["node"] == node)
            and (class_name is None or line["class"] == class_name)
            and (pid is None or line["pid"] == pid)
            and (stream is None or line["stream"] == stream)
            and (pattern is None or pattern.search(line["text"]) is not None)
        )

    with Observers() as observers:
        news = [observer.events(timeout=POLL_SECONDS) for observer in observers] if follow else []
        found = [_of_file(line) for observer in observers for line in observer.logs(lines)]
        shown = sorted(filter(wanted, found), key=lambda line: line["at"])
        if not shown:
            _say_nothing(who, node, observers, goes_on=follow)
        if as_json and not follow:  # what streams is never a whole list
            click.echo(json.dumps(shown))
        else:
            for line in shown:
                show(line, as_json=as_json)
        if follow:
            last = max((line["at"] for line in found), default="")
            _follow(news, lambda line: line["at"] > last and wanted(line), as_json)


def _say_nothing(who: str | None, node: str | None, observers: Observers, *, goes_on: bool) -> None:
    """Nothing is shown: says so, or that there is no such actor or node, which may yet come where it goes on."""
    lack = _lack(who, node, observers)
    if lack and not goes_on:
        raise click.ClickException(lack)
    said = lack or "Nothing like that was printed"
    end = "" if said.endswith("?") else "."
    click.echo(f"{said}{end} Waiting for what comes; Ctrl-C ends it." if goes_on else f"{said}{end}", err=True)


def _lack(who: str | None, node: str | None, observers: Observers) -> str:
    """Returns that there is no such actor or node; empty where both are there."""
    if who is not None:
        try:
            find(who, observers.views())
        except LookupError as error:
            return str(error)
    names = sorted({info.name for observer in observers for info in observer.nodes()})
    return "" if node is None or node in names else f"nodes are {', '.join(names)}, and not {node!r}"


def _follow(news: list[Any], wanted: Callable[[dict[str, Any]], bool], as_json: bool) -> None:
    from actors.events import LogPrinted

    while True:
        for stream in news:
            for found in stream:
                if found is None:
                    break
                event = found[1]
                if isinstance(event, LogPrinted):
                    line = {
                        "at": datetime.fromtimestamp(event.at).astimezone().isoformat(timespec="milliseconds"),
                        "node": event.node, "pid": event.pid, "actor": event.actor, "class": event.class_name,
                        "name": event.name, "stream": event.stream, "text": event.text,
                    }  # fmt: skip
                    if wanted(line):
                        show(line, as_json=as_json)


def _of_file(line: Any) -> dict[str, Any]:
    node, pid, actor, class_name, name, (at, stream, text) = line
    return {
        "at": at, "node": node, "pid": pid, "actor": actor, "class": class_name, "name": name, "stream": stream,
        "text": text,
    }  # fmt: skip


def show(line: dict[str, Any], *, as_json: bool) -> None:
    """Prints one line of an actor's."""
    if as_json:
        click.echo(json.dumps(line))
        return
    who = f"({line['name'] or line['class'] or 'worker'} pid={line['pid']} node={line['node']})"
    clock = line["at"][11:23]
    say(f"{paint(clock, dim=True)} {paint(who, 'red' if line['stream'] == 'stderr' else 'cyan')} {line['text']}")
