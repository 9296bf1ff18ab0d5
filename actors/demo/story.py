"""What happens in the demonstration, as a stream of events; whoever tells it decides how it looks."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import actors
from actors.demo.cast import Counter, Mathematician

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from actors.group import ActorGroup
    from actors.models import Plan, ShardedModel
    from actors.nodeinfo import NodeInfo

NODES = 3
PRIMES_BELOW = 60_000
ARRAY_LENGTH = 1_000_000
MAX_TOKENS = 42  # two sentences of the answer to the question that is asked by default


@dataclass(frozen=True, slots=True)
class Begins:
    """Something begins that may take a while."""

    what: str


@dataclass(frozen=True, slots=True)
class NodesFound:
    """The nodes have found each other, after so many seconds."""

    nodes: tuple[NodeInfo, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Counted:
    """A counter on each node: its own count, and what the first one had each next one count."""

    counts: tuple[int, ...]
    told: int


@dataclass(frozen=True, slots=True)
class Mapped:
    """A range cut in three, one part for each actor."""

    below: int
    primes: tuple[int, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Reduced:
    """The actors have added up an array; `ok` where each has the right sum."""

    length: int
    value: float
    ok: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Planned:
    """The model's layers are where they shall be."""

    plan: Plan
    seconds: float


@dataclass(frozen=True, slots=True)
class Asked:
    """The model is asked."""

    prompt: str
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Said:
    """A piece of the model's answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer has ended: by itself, or because it had become long."""

    tokens: tuple[int, ...]
    ended: bool
    tokens_per_s: float


Event = Begins | NodesFound | Counted | Mapped | Reduced | Planned | Asked | Said | Answered


def story(prompt: str, on_progress: Callable[[str], None]) -> Iterator[Event]:
    """Lives through the demonstration.

    Args:
        prompt: what to ask the model.
        on_progress: told how the model's download gets on.

    Raises:
        ActorsError: something did not work; the message says what.
    """
    yield Begins(f"starting {NODES} nodes, which look for each other by zeroconf")
    start = time.monotonic()
    with actors.init(local_nodes=NODES, log_to_driver=False):
        nodes = tuple(node for node in actors.nodes() if node.alive)
        yield NodesFound(nodes, time.monotonic() - start)
        yield _count(nodes)
        group = actors.remote(Mathematician).group(len(nodes))
        yield Begins("counting primes on all nodes at once")
        yield _map(group)
        yield _reduce(group)
        group.kill()
        yield Begins("getting the model")
        yield from _ask(actors.models.demo_model(on_progress), prompt)


def _count(nodes: tuple[NodeInfo, ...]) -> Counted:
    counters = [actors.remote(Counter).options(node=node.name).remote() for node in nodes]
    counts = actors.get([counter.add.remote() for counter in counters])
    told = [actors.get(counters[0].tell.remote(other, 10)) for other in counters[1:]]
    for counter in counters:
        actors.kill(counter)
    return Counted(tuple(counts), told[-1])


def _map(group: ActorGroup) -> Mapped:
    start = time.monotonic()
    edges = [round(PRIMES_BELOW * (part / len(group)) ** (2 / 3)) for part in range(len(group) + 1)]
    primes = actors.get(group.primes.map(itertools.pairwise(edges)))
    return Mapped(PRIMES_BELOW, tuple(primes), time.monotonic() - start)


def _reduce(group: ActorGroup) -> Reduced:
    start = time.monotonic()
    totals = actors.get(group.sum_of_ranks.remote(ARRAY_LENGTH))
    wanted = sum(range(1, len(group) + 1))
    ok = all(total.shape == (ARRAY_LENGTH,) and bool((total == wanted).all()) for total in totals)
    return Reduced(ARRAY_LENGTH, float(totals[0][0]), ok, time.monotonic() - start)


def _ask(path: Path, prompt: str) -> Iterator[Event]:
    yield Begins("loading each node's layers")
    start = time.monotonic()
    with actors.models.ShardedModel.load(path) as model:
        yield Planned(model.plan, time.monotonic() - start)
        prompt_ids = model.tokenizer.encode_chat([{"role": "user", "content": prompt}])
        yield Asked(prompt, tuple(prompt_ids))
        yield Begins("the prompt passes through all nodes")
        yield from _answer(model, prompt_ids)


def _answer(model: ShardedModel, prompt_ids: list[int]) -> Iterator[Event]:
    tokens: list[int] = []
    first = 0.0
    stop = model.tokenizer.stop_ids

    def kept() -> Iterator[int]:
        nonlocal first
        for token in model.tokens(prompt_ids, max_tokens=MAX_TOKENS):
            if not tokens:
                first = time.monotonic()
            tokens.append(token)
            if token not in stop:
                yield token

    for text in model.tokenizer.stream(kept()):
        yield Said(text)
    seconds = time.monotonic() - first
    # The first token is the prompt's work; the rate is of those after it.
    rate = (len(tokens) - 1) / seconds if len(tokens) > 1 else 0.0
    yield Answered(tuple(tokens), bool(tokens) and tokens[-1] in stop, rate)
