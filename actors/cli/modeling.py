"""What `generate`, `chat` and `serve` have in common: where the model is, and the nodes that hold it."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

import actors
from actors.exceptions import ActorsError
from actors.models.source import locate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actors.models import ShardedModel

CommandT = TypeVar("CommandT", bound="Callable[..., Any]")
STRATEGIES = ("auto", "pipeline", "tensor")
ARITHMETIC = ("auto", "stored", "float32")


@dataclass(frozen=True, slots=True)
class Loading:
    """How a model is to be loaded; see `ShardedModel.load`. `draft_model` is what its user calls the draft."""

    strategy: str
    arithmetic: str
    draft_model: str | None
    shadow: bool

    def options(self) -> dict[str, Any]:
        """As `ShardedModel.load` takes them; looks for the draft."""
        if self.shadow and self.strategy == "tensor":
            raise click.UsageError("--shadow is for a model cut by its layers: leave out --strategy tensor")
        draft = None if self.draft_model is None else find_model(self.draft_model)
        return {"strategy": self.strategy, "arithmetic": self.arithmetic, "draft": draft, "shadow": self.shadow}


def model_options(command: CommandT) -> CommandT:
    """The argument and options that say which model is to be cut over which nodes, and how (`loading`)."""

    @wraps(command)
    def run(*args: Any, strategy: str, arithmetic: str, draft_model: str | None, shadow: bool, **others: Any) -> Any:
        return command(*args, loading=Loading(strategy, arithmetic, draft_model, shadow), **others)

    decorated = cast("CommandT", run)
    for option in (
        click.option(
            "--draft-model", metavar="SMALL",
            help="A small model of the same family that guesses ahead, for as long as that is faster.",
        ),
        click.option(
            "--shadow", is_flag=True,
            help="Keep caches twice, so that answers go on at once when a device dies.",
        ),
        click.option(
            "--arithmetic", type=click.Choice(ARITHMETIC), default="auto", show_default=True,
            help="On a CPU: weights as they are stored, or in float32 by OpenBLAS.",
        ),
        click.option(
            "--strategy", type=click.Choice(STRATEGIES), default="auto", show_default=True, help="How to cut the model."
        ),
        click.option(
            "--local-nodes", type=click.IntRange(1, 64), metavar="N",
            help="Use N nodes on this machine alone, a LAN in miniature [default: the devices of the cluster].",
        ),
        click.argument("model", metavar="MODEL"),
    ):  # fmt: skip
        decorated = option(decorated)
    return decorated


def find_model(model: str) -> str:
    """The file or directory of MODEL, or its name on the hub, looked at; standard error tells how a download gets on.

    Raises:
        ModelError: there is none, or it is damaged or of a kind that is not known.
    """
    said = False

    def progress(text: str) -> None:
        nonlocal said
        said = True
        click.echo(f"{text} …", err=True)

    return locate(model, progress)


@contextmanager
def nodes_for_models(local_nodes: int | None) -> Iterator[None]:
    """The cluster that a model is cut over, for as long as the command runs."""
    if local_nodes is None:
        cluster = actors.init(log_to_driver=False)
    else:
        cluster = actors.init("local", local_nodes=local_nodes, log_to_driver=False)
    with cluster:
        yield


def load(path: str, **options: Any) -> ShardedModel:
    """Cuts the model over the nodes that there are.

    Raises:
        ActorsError: it cannot be done, or not yet.
    """
    from actors.models import ShardedModel

    try:
        sharded: ShardedModel = ShardedModel.load(path, **options)
    except NotImplementedError as error:
        raise ActorsError(str(error)) from error
    return sharded


@contextmanager
def loaded(model: str, local_nodes: int | None, loading: Loading) -> Iterator[ShardedModel]:
    """The model, cut over its nodes, for as long as the command runs."""
    path, options = find_model(model), loading.options()
    note(f"loading {model}")
    with nodes_for_models(local_nodes), load(path, **options) as sharded:
        count = len(sharded.plan.stages)
        note(f"{model}: {sharded.plan.model.layers} layers on {count} node{'s' * (count != 1)}")
        yield sharded


def note(text: str) -> None:
    """Says on standard error, where somebody looks, what takes its time."""
    if sys.stderr.isatty():
        click.echo(f"… {text}", err=True)
