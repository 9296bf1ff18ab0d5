"""``actors demo``: tells the story of `actors.demo.story` on the screen, or as one JSON object."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from actors.demo import story as tale
from actors.exceptions import ActorsError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

PROMPT = "What is the capital of France, and what can one see there?"
_MARGIN = len("Model  ")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else on standard output.")
@click.option("--prompt", default=PROMPT, show_default=True, help="What to ask the model.")
def demo(as_json: bool, prompt: str) -> None:
    """See the whole idea work, on this machine alone.

    Starts three nodes as separate processes that find each other by zeroconf, puts actors on them, lets these call
    each other and add up an array, and splits one language model over all three, which streams its answer.

    \b
    Example:
      actors demo
      actors demo --json --prompt "Why is the sky blue?"
    """  # noqa: D301 - click wants the character itself
    from rich.console import Console

    console = Console(stderr=as_json, highlight=False)
    teller = Teller(console, quiet=as_json)
    record = Record()
    if not as_json:
        teller.open()
    try:
        for event in tale.story(prompt, teller.progress):
            teller.tell(event)
            record.take(event)
    finally:
        teller.close()
    if as_json:
        click.echo(json.dumps(record.whole))
    else:
        console.print("Everything that was started here has ended again.")
    if not record.whole["allreduce"]["ok"]:
        raise ActorsError("the all-reduce gave a wrong sum: please report it")


class Record:
    """The story as one JSON object."""

    def __init__(self) -> None:
        self.whole: dict[str, Any] = {"nodes": [], "allreduce": {"ok": False}, "model": {}}

    def take(self, event: tale.Event) -> None:
        """Notes what happened."""
        model = self.whole["model"]
        match event:
            case tale.NodesFound(nodes):
                self.whole["nodes"] = [
                    {"name": n.name, "address": n.address, "pid": n.pid, "found_by": n.found_by} for n in nodes
                ]
            case tale.Reduced(ok=ok):
                self.whole["allreduce"]["ok"] = ok
            case tale.Planned(plan):
                model["stages"] = [{"node": s.node, "first": s.first, "last": s.last} for s in plan.stages]
            case tale.Asked(prompt, tokens):
                model["prompt"], model["prompt_tokens"] = prompt, list(tokens)
            case tale.Answered(tokens, _, rate):
                model["tokens"], model["tokens_per_s"] = list(tokens), round(rate, 2)


class Teller:
    """Tells the story in words as it happens; on a terminal, what takes a while has a spinner."""

    def __init__(self, console: Console, quiet: bool) -> None:
        self._console = console
        self._quiet = quiet  # only what is going on, no results: these go elsewhere
        self._status: Any = nullcontext()
        self._what = ""
        self._shown = ""
        self._column = 0  # where the model's answer has got to in its line; 0 while it is silent
        self._word = ""  # its last word, which may go on

    def open(self) -> None:
        """Says what is to be seen."""
        self._head("mlx-actors", ": Python objects on every device of a LAN.")
        self._line("Here, three nodes on this machine stand for three devices.")

    def tell(self, event: tale.Event) -> None:
        """Says one event."""
        if isinstance(event, tale.Begins):
            self._begin(event.what)
            return
        self.stop()
        if not self._quiet:
            self._say(event)

    def progress(self, text: str) -> None:
        """Says how a long step gets on."""
        self._show(f"{self._what}: {text}")

    def stop(self) -> None:
        """Takes the spinner away."""
        self._status.__exit__(None, None, None)
        self._status = nullcontext()

    def close(self) -> None:
        """Leaves the terminal as it should be, also where the story broke off."""
        self.stop()
        if self._column:
            self._say_word(self._word)
            self._write("\n")
            self._column, self._word = 0, ""

    def _begin(self, what: str) -> None:
        self.stop()
        self._what = what
        if self._console.is_terminal:
            self._status = self._console.status("")
            self._status.__enter__()
        self._show(what)

    def _show(self, text: str) -> None:
        if self._console.is_terminal:
            self._status.update(f"{escape(text)} …")
        elif text != self._shown:  # in a file, what goes on unchanged is said once
            self._line(f"… {text}")
        self._shown = text

    def _say(self, event: tale.Event) -> None:
        match event:
            case tale.NodesFound(nodes, seconds):
                self._head(f"{len(nodes)} nodes", f" found each other by zeroconf in {seconds:.1f} s:")
                self._table(
                    (n.name, n.address, f"pid {n.pid}", f"{int(str(n.device['memory'])) / 2**30:.0f} GiB")
                    for n in nodes
                )
            case tale.Counted(counts, told):
                said = ", ".join(map(str, counts))
                self._head("An actor on each", f": three counters, each in a process of its own, say {said}.")
                self._line(f"  One of them called another, and had it count on by 10: {told}.")
            case tale.Mapped(below, primes, seconds):
                self._head("A parallel map", f": how many primes are below {below:,}? A third of the work each:")
                self._line(f"  {' + '.join(map(str, primes))} = {sum(primes)} in {seconds:.1f} s")
            case tale.Reduced(length, value, ok, seconds):
                self._head("An all-reduce", f": the actors add up {length:,} numbers among themselves:")
                verdict = "on every node" if ok else "somewhere, and that is WRONG"
                self._line(f"  1 + 2 + 3 = {value:g} in each place, {verdict}, in {seconds * 1000:.0f} ms")
            case tale.Planned(plan, seconds):
                self._head("One language model", f", {plan.model.layers} layers, cut in three in {seconds:.1f} s:")
                self._table(
                    (s.node, f"layers {s.first:>2} to {s.last:>2}", f"{s.nbytes / 2**20:.0f} MiB") for s in plan.stages
                )
            case tale.Asked(prompt, _):
                self._head("You", f"    {prompt}")
            case tale.Said(text):
                self._speak(text)
            case tale.Answered(tokens, ended, rate):
                self.close()
                stopped = "" if ended else ", then it was stopped"
                self._line(f"\n{len(tokens)} tokens{stopped}; {rate:.1f} a second, each through all nodes.")

    def _speak(self, text: str) -> None:
        """Says a piece of the answer, word by word; one that does not fit begins a new line."""
        if not self._column:
            self._console.print("[bold]Model[/bold]  ", end="")
            self._column = _MARGIN
        *words, self._word = re.split(r"(?=\s)", self._word + text)
        for word in words:
            self._say_word(word)

    def _say_word(self, word: str) -> None:
        if word.startswith("\n") or (word.startswith(" ") and self._column + len(word) > self._console.width):
            word = word[1:]
            self._write("\n" + " " * _MARGIN)
            self._column = _MARGIN
        self._write(word)
        self._column += len(word)

    def _write(self, text: str) -> None:
        self._console.file.write(text)
        self._console.file.flush()

    def _head(self, title: str, text: str) -> None:
        self._console.print(f"\n[bold]{title}[/bold]{escape(text)}")

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False)

    def _table(self, rows: Iterable[tuple[str, ...]]) -> None:
        rows = list(rows)
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self._line(f"  {'  '.join(cells)}".rstrip())
