"""What an actor or a task needs to be placed, what it holds while it runs, and the labels that it asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from actors.frozen import travelling

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.options import ActorOptions, TaskOptions
    from actors.strategy import Strategy

GRAIN = 10_000
"""Amounts are reckoned in so many parts of one, as whole numbers: tenths then add up."""

BYTES = "memory"
NODE_ID = "ray.io/node-id"
PYTHON_MINOR = "actors.io/python"
ACCELERATOR = "ray.io/accelerator-type"
OURS = ("ray.io/", "actors.io/")

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_LIST = re.compile(r"in\((.*)\)")

Parts = dict[str, int]
"""Amounts by the name of the resource, in parts; see `GRAIN`."""


@travelling
@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of a node.

    Attributes:
        needs: what a node must have for it to be placed there, such as ``{"CPU": 1.0}``.
        holds: what of that must be free there, and is held from then on.
        node: name or id of the one node that will do.
        selector: labels that the node must have, see `matches`.
        strategy: which of the nodes that will do.
        timeout: seconds it waits for room; None waits, 0 does not.
        python: minor version of Python that the node should run, where code travels there by value. A node that is
            asked for by name is not looked at for it, and refuses the code itself.
    """

    needs: dict[str, float]
    holds: dict[str, float]
    node: str | None = None
    selector: dict[str, str] | None = None
    strategy: Strategy = "DEFAULT"
    timeout: float | None = None
    python: str | None = None

    @property
    def words(self) -> str:
        """Says what is asked for."""
        asked = [amount(name, value) for name, value in self.needs.items()]
        text = _listed(asked) or "no resources"
        if self.node is not None:
            text += f" on node {self.node}"
        elif not isinstance(self.strategy, str):
            text += f" on node {self.strategy.node_id}"
        if self.selector:
            text += f" on a node with the labels {self.selector}"
        return text


def demand_of(
    options: ActorOptions | TaskOptions, *, runs_at_once: bool = False, shares: bool = False, python: str | None = None
) -> Demand:
    """Returns what options ask for, as in Ray: without ``num_cpus`` an actor needs a node with 1 CPU and holds none.

    Args:
        options: of the actor or task.
        runs_at_once: it is a task, which holds the 1 CPU too.
        shares: it is a light actor, which needs no CPU either.
        python: see `Demand`.
    """
    given = {"CPU": options.num_cpus, "GPU": options.num_gpus, BYTES: options.memory, **(options.resources or {})}
    holds = {name: float(value) for name, value in given.items() if value}
    needs = dict(holds)
    if options.num_cpus is None and not shares:
        needs = {"CPU": 1.0, **needs}
        holds = needs if runs_at_once else holds
    selector = dict(options.label_selector) if options.label_selector else None
    return Demand(needs, holds, options.node, selector, options.scheduling_strategy, options.placement_timeout, python)


def parts(amounts: Mapping[str, float]) -> Parts:
    """Returns amounts in parts, without those that are none."""
    return {name: whole for name, value in amounts.items() if (whole := round(value * GRAIN))}


def amount(name: str, value: float) -> str:
    """Says an amount: ``"2 CPUs"``, ``"1.5 GiB of memory"``."""
    if name == BYTES:
        return f"{_bytes(value)} of memory"
    return f"{value:.10g} {name}{'s' if name in {'CPU', 'GPU'} and value != 1 else ''}"


def check_amount(name: str, value: object) -> None:
    """Raises for what is no amount of a resource.

    Raises:
        TypeError: it is no number.
        ValueError: it is below 0, too small to be reckoned with, or more than one GPU and not whole.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not isfinite(value) or value < 0:
        raise ValueError(f"{name} must be a number from 0, not {value!r}")
    if value and not round(value * GRAIN):
        raise ValueError(f"{name} must be 0, or {1 / GRAIN:g} or more, not {value!r}")
    if name == "num_gpus" and value > 1 and value != int(value):
        raise ValueError(f"num_gpus must be a whole number where it is over 1, not {value!r}")


# -- labels -----------------------------------------------------------------------------------------------------


def matches(selector: Mapping[str, str] | None, labels: Mapping[str, str]) -> bool:
    """Whether a node with these labels will do.

    Args:
        selector: by label, ``"v"``, ``"!v"``, ``"in(v,w)"`` or ``"!in(v,w)"``. As in Ray, a node without the label
            meets the two that begin with ``!``.
        labels: of the node.
    """
    return all(_meets(labels.get(key), wanted) for key, wanted in (selector or {}).items())


def _meets(value: str | None, wanted: str) -> bool:
    barred, values = _values(wanted)
    return (value in values) != barred


def _values(wanted: str) -> tuple[bool, list[str]]:
    barred = wanted.startswith("!")
    rest = wanted.removeprefix("!")
    found = _LIST.fullmatch(rest)
    return barred, [value.strip() for value in found[1].split(",")] if found else [rest]


def check_selector(selector: Mapping[str, str]) -> None:
    """Raises for a selector that cannot be meant: TypeError for a wrong type, ValueError for a wrong form."""
    for key, wanted in selector.items():
        _check_key("label_selector", key)
        if not isinstance(wanted, str):
            raise TypeError(f"label_selector[{key!r}] must be a string, not {wanted!r}")
        if not all(_NAME.fullmatch(value) for value in _values(wanted)[1]):
            raise ValueError(
                f"label_selector[{key!r}] must be a value, '!value', 'in(value,value)' or '!in(value,value)', where a "
                f"value is up to 63 letters, digits, '-', '_' and '.', not {wanted!r}"
            )


def check_labels(labels: object) -> None:
    """Raises for labels of a node that nobody could select: TypeError for a wrong type, ValueError for a wrong form."""
    if not isinstance(labels, dict):
        raise TypeError(f"labels must be a dict of strings, not {labels!r}")
    for key, value in labels.items():
        _check_key("labels", key)
        if key.startswith(OURS):
            raise ValueError(f"labels[{key!r}]: names that begin with {' or '.join(OURS)} are given by the node itself")
        if not isinstance(value, str):
            raise TypeError(f"labels[{key!r}] must be a string, not {value!r}")
        if value and not _NAME.fullmatch(value):
            raise ValueError(
                f"labels[{key!r}] must be up to 63 letters, digits, '-', '_' and '.', with a letter or digit first and "
                f"last, not {value!r}"
            )


def _check_key(owner: str, key: object) -> None:
    if not isinstance(key, str):
        raise TypeError(f"the keys of {owner} must be strings, not {key!r}")
    prefix, slash, name = key.rpartition("/")
    if not _NAME.fullmatch(name) or (slash and not _PREFIX.fullmatch(prefix)):
        raise ValueError(f"a key of {owner} must be of the form 'name' or 'some.domain/name', not {key!r}")


def _bytes(value: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.4g} {unit}"


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
