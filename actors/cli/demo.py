"""``actors demo``: tells the story of `actors.demo.story` on the screen, or as one JSON object."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from actors.demo import story as tale
from actors.exceptions import ActorsError

if TYPE_CHECKING:
    from rich.console import Console

PROMPT = "What is the capital of France? Tell me one thing to see there."


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else on standard output.")
@click.option("--prompt", default=PROMPT, show_default=True, help="What to ask the model.")
def demo(as_json: bool, prompt: str) -> None:
    r"""See the whole idea work, on this machine alone.

    Starts three nodes as separate processes that find each other by zeroconf, puts actors on them, lets these call
    each other and add up an array, and splits one language model over all three, which streams its answer.

    \b
    Example:
      actors demo
      actors demo --json --prompt "Why is the sky blue?"
    """
    from rich.console import Console

    console = Console(stderr=as_json, highlight=False)
    teller = Teller(console, quiet=as_json)
    record = Record()
    try:
        for event in tale.story(prompt, teller.progress):
            teller.tell(event)
            record.take(event)
    finally:
        teller.stop()
    if as_json:
        click.echo(json.dumps(record.whole))
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
            case tale.Answered(tokens, rate):
                model["tokens"], model["tokens_per_s"] = list(tokens), round(rate, 2)


class Teller:
    """Tells the story in words as it happens; on a terminal, what takes a while has a spinner."""

    def __init__(self, console: Console, quiet: bool) -> None:
        self._console = console
        self._quiet = quiet  # only what is going on, no results: these go elsewhere
        self._status: Any = nullcontext()
        self._what = ""
        self._speaking = False  # the model has begun its answer

    def tell(self, event: tale.Event) -> None:
        """Says one event."""
        self.stop()
        if isinstance(event, tale.Begins):
            self._begin(event.what)
        elif not self._quiet:
            self._say(event)

    def _begin(self, what: str) -> None:
        self._what = what
        self._status = self._console.status(f"{what} …")
        self._status.__enter__()
        if not self._console.is_terminal:
            self._console.print(f"… {what}")

    def progress(self, text: str) -> None:
        """Says how a long step gets on."""
        if self._console.is_terminal and hasattr(self._status, "update"):
            self._status.update(f"{self._what}: {text}")
        else:
            self._console.print(f"… {text}", markup=False)

    def stop(self) -> None:
        """Takes the spinner away."""
        self._status.__exit__(None, None, None)
        self._status = nullcontext()

    def _say(self, event: tale.Event) -> None:
        say = self._console.print
        match event:
            case tale.NodesFound(nodes, seconds):
                say(f"\n[bold]{len(nodes)} nodes[/bold] found each other by zeroconf in {seconds:.1f} s:")
                for node in nodes:
                    memory = int(node.device["memory"]) / 2**30  # type: ignore[call-overload]
                    say(f"  {node.name:<24} {node.address:<18} pid {node.pid:<8} {memory:.0f} GiB", markup=False)
            case tale.Counted(counts, told):
                say(f"\n[bold]An actor on each[/bold]: three counters say {', '.join(map(str, counts))}.")
                say(f"  One of them called another directly and had it count on: {told}.")
            case tale.Mapped(below, primes, seconds):
                parts = " + ".join(map(str, primes))
                say(f"\n[bold]A parallel map[/bold]: primes below {below:,}, a third of the work on each node:")
                say(f"  {parts} = {sum(primes)} in {seconds:.1f} s")
            case tale.Reduced(length, value, ok, seconds):
                say(f"\n[bold]An all-reduce[/bold] of {length:,} numbers among the actors themselves:")
                say(f"  1 + 2 + 3 = {value:g} in every place, on every node: {ok} ({seconds * 1000:.0f} ms)")
            case tale.Planned(plan, seconds):
                say(f"\n[bold]One language model over three processes[/bold], loaded in {seconds:.1f} s:")
                for stage in plan.stages:
                    size = stage.nbytes / 2**20
                    layers = f"layers {stage.first:>2} to {stage.last:>2}"
                    say(f"  {stage.node:<24} {layers}  {size:.0f} MiB", markup=False)
            case tale.Asked(prompt, _):
                say(f"\n[bold]You[/bold]    {prompt}")
            case tale.Said(text):
                if not self._speaking:
                    say("[bold]Model[/bold]  ", end="")
                    self._speaking = True
                self._console.file.write(text)
                self._console.file.flush()
            case tale.Answered(tokens, rate):
                say(f"\n\n{len(tokens)} tokens, {rate:.1f} a second. Every one of them passed through all three nodes.")
                sys.stdout.flush()
