"""What `generate`, `chat` and `serve` have in common: where the model is, and the nodes that hold it."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

import actors
from actors.exceptions import ActorsError
from actors.models import describe
from actors.models.source import locate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from actors.models import ShardedModel

CommandT = TypeVar("CommandT", bound="Callable[..., Any]")
STRATEGIES = ("auto", "pipeline", "tensor")


def model_options(command: CommandT) -> CommandT:
    """The argument and options that say which model is to be cut over which nodes, and how."""
    for option in (
        click.option(
            "--strategy", type=click.Choice(STRATEGIES), default="auto", show_default=True, help="How to cut the model."
        ),
        click.option(
            "--local-nodes", type=click.IntRange(min=1), metavar="N",
            help="Use N nodes on this machine alone, a LAN in miniature [default: the devices of the cluster].",
        ),
        click.argument("model", metavar="MODEL"),
    ):  # fmt: skip
        command = option(command)
    return command


def find_model(model: str) -> Path:
    """The file or directory of MODEL, looked at; tells on standard error how a download gets on.

    Raises:
        ModelError: there is none, or it is damaged or of a kind that is not known.
    """
    said = False

    def progress(text: str) -> None:
        nonlocal said
        said = True
        click.echo(f"{text} …", err=True)

    path = locate(model, progress)
    describe(path)  # before anything is started
    return path


@contextmanager
def nodes_for_models(local_nodes: int | None) -> Iterator[None]:
    """The cluster that a model is cut over, for as long as the command runs."""
    if local_nodes is None:
        cluster = actors.init(log_to_driver=False)
    else:
        cluster = actors.init("local", local_nodes=local_nodes, log_to_driver=False)
    with cluster:
        yield


def load(path: Path, strategy: str, **options: Any) -> ShardedModel:
    """Cuts the model over the nodes that there are.

    Raises:
        ActorsError: it cannot be done, or not yet.
    """
    from actors.models import ShardedModel

    try:
        sharded: ShardedModel = ShardedModel.load(path, strategy=strategy, **options)
    except NotImplementedError as error:
        raise ActorsError(str(error)) from error
    return sharded


@contextmanager
def loaded(model: str, local_nodes: int | None, strategy: str) -> Iterator[ShardedModel]:
    """The model, cut over its nodes, for as long as the command runs."""
    path = find_model(model)
    note(f"loading {model}")
    with nodes_for_models(local_nodes), load(path, strategy) as sharded:
        count = len(sharded.plan.stages)
        note(f"{model}: {sharded.plan.model.layers} layers on {count} node{'s' * (count != 1)}")
        yield sharded


def note(text: str) -> None:
    """Says on standard error, where somebody looks, what takes its time."""
    if sys.stderr.isatty():
        click.echo(f"… {text}", err=True)
