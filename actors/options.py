"""What an actor, a method or a task asks for: frozen values that travel whole."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import isfinite
from typing import Any, Self

from actors.demand import check_amount, check_selector
from actors.environment import check_environment
from actors.exceptions import ArgumentError
from actors.frozen import travelling
from actors.strategy import Strategy, check_strategy

# Known from Ray, and not here: a program that gives one must not believe that it has what it asked for.
NOT_HERE = {
    "accelerator_type": "give the node a label and use label_selector=",
    "max_calls": "a worker is used again as long as it lives",
    "object_store_memory": "values are kept by the process that made them",
    "placement_group": "place a group by .group(size), or by scheduling_strategy='SPREAD' or 'PACK'",
    "placement_group_bundle_index": "there are no placement groups",
    "placement_group_capture_child_tasks": "there are no placement groups",
    "enable_task_events": "actors list calls shows them as they are; record=True keeps those of an actor",
    "enable_tensor_transport": "arrays travel between actors as they are",
    "tensor_transport": "arrays travel between actors as they are",
    "fallback_strategy": "use a soft NodeAffinitySchedulingStrategy",
}

Retry = bool | tuple[type[BaseException], ...]
"""Exceptions of the method's own that a call is repeated for: all, none, or those of some classes."""


@travelling
@dataclass(frozen=True, slots=True)
class _Options:
    """Options of some thing, merged whole and checked where they are written."""

    def merged(self, **options: Any) -> Self:
        """Returns these options with others in their place; None takes one back to what it is where it is not given.

        Raises:
            TypeError: an option has a name nobody knows, or a value of the wrong kind.
            NotImplementedError: an option of Ray's that is not honoured here.
            ValueError: a value out of range.
        """
        known = {field.name: field.default for field in fields(self)}
        for name in options:
            if name in NOT_HERE:
                raise NotImplementedError(f"the option {name!r} is not honoured: {NOT_HERE[name]}; leave it out")
            if name not in known:
                raise ArgumentError(f"{name!r} is no option of {self.of}; there are: {', '.join(sorted(known))}")
        if isinstance(options.get("retry_exceptions"), list):
            options["retry_exceptions"] = tuple(options["retry_exceptions"])
        merged = replace(self, **{name: known[name] if value is None else value for name, value in options.items()})
        merged.check()
        return merged

    @property
    def of(self) -> str:
        """What these are options of, for messages."""
        raise NotImplementedError

    def check(self) -> None:
        """Raises where a value cannot be meant."""


@travelling
@dataclass(frozen=True, slots=True)
class _Placed(_Options):
    """What anything asks for that is placed on a node.

    Attributes:
        num_cpus: CPUs it holds while it runs. None: an actor needs a node that has 1, a task holds 1.
        num_gpus: GPUs it holds.
        memory: bytes it holds.
        resources: further resources it holds, by name.
        node: name or id of the node it must be on.
        label_selector: labels the node must have; a value may be ``"!x"``, ``"in(a,b)"`` or ``"!in(a,b)"``.
        scheduling_strategy: ``"DEFAULT"``, ``"SPREAD"`` over the nodes, ``"PACK"`` on as few as can be, or a
            `NodeAffinitySchedulingStrategy`.
        placement_timeout: seconds to wait for room; None waits, 0 refuses at once.
        runtime_env: environment of its process; see `actors.environment`.
        name: its name.
    """

    num_cpus: float | None = None
    num_gpus: float | None = None
    memory: float | None = None
    resources: dict[str, float] | None = None
    node: str | None = None
    label_selector: dict[str, str] | None = None
    scheduling_strategy: Strategy = "DEFAULT"
    placement_timeout: float | None = None
    runtime_env: dict[str, Any] | None = None
    name: str | None = None

    def check(self) -> None:
        """See `_Options`."""
        _check_text(self, "node", "name")
        _check_amount("placement_timeout", self.placement_timeout)
        for name in ("num_cpus", "num_gpus", "memory"):
            if (value := getattr(self, name)) is not None:
                check_amount(name, value)
        _check_dict("resources", self.resources)
        for name, amount in (self.resources or {}).items():
            if name in {"CPU", "GPU", "memory"}:
                raise ValueError(f"resources={{{name!r}: …}}: use num_cpus=, num_gpus= or memory= for it")
            check_amount(f"resources[{name!r}]", amount)
        _check_dict("label_selector", self.label_selector)
        check_selector(self.label_selector or {})
        check_strategy(self.scheduling_strategy)
        if self.node is not None and self.scheduling_strategy != "DEFAULT":
            raise ValueError("node= names the node already: leave scheduling_strategy= out")
        check_environment(self.runtime_env)


@travelling
@dataclass(frozen=True, slots=True)
class ActorOptions(_Placed):
    """How and where an actor shall live.

    Attributes:
        namespace: where the name holds; None takes that of `actors.init`.
        get_if_exists: take the actor that has the name already, if there is one.
        lifetime: ``"detached"`` for an actor that outlives its maker.
        max_restarts: how often it is made anew after its process has died; -1 for ever.
        max_task_retries: how often a call is repeated that its actor's death has cut off; -1 for ever.
        retry_exceptions: repeat also calls whose method raised.
        max_concurrency: calls that may run at once; None is 1, or 1000 for a class with async methods.
        concurrency_groups: further groups of methods by name, each with its own number of calls at once.
        max_pending_calls: calls that one process may have waiting; more raise `PendingCallsLimitExceeded`. With -1,
            ``.remote()`` blocks instead when very many wait.
        allow_out_of_order_execution: a call may overtake one that waits for its arguments.
        isolation: ``"process"``, or ``"thread"`` for a light actor, which shares a process with the others that its
            maker has on that node. A crash there ends them all, a plain method that runs cannot be stopped (the actor
            is dead, its thread goes on unheard), and an async method that blocks holds up those of the others.
        checkpoint: when the state of ``__actor_save__`` is taken: after each ``"call"``, each ``"100 calls"``, or
            ``"10s"`` after the last time, if there has been a call since. None: after each call, if the actor can be
            restarted and has the hooks. A call that counts is answered once its maker has the state; by the clock no
            call waits for that, and new ones are held, for at most a second, until none is half-way. After a call,
            where several run at once, the state may have others of them half-way.
        record: write its calls to a file on its node, for `actors replay`; it says where.
        replicas: on how many other nodes a detached actor that can be restarted is kept, with its state: if its node is
            lost, one of them makes it anew. A call is answered when all of them have the state that is due. With 1,
            where there is no other node there is no copy until one comes; more than there are nodes is refused. An
            actor that is not detached is kept by its maker, whom it does not outlive, so no other node's loss costs it
            its state.
    """

    namespace: str | None = None
    get_if_exists: bool = False
    lifetime: str | None = None
    max_restarts: int = 0
    max_task_retries: int = 0
    retry_exceptions: Retry = False
    max_concurrency: int | None = None
    concurrency_groups: dict[str, int] | None = None
    max_pending_calls: int = -1
    allow_out_of_order_execution: bool | None = None
    isolation: str = "process"
    checkpoint: str | None = None
    record: bool = False
    replicas: int = 1

    @property
    def of(self) -> str:
        """See `_Options`."""
        return "an actor"

    def check(self) -> None:
        """See `_Options`."""
        # Named, since slots=True makes the class anew and super() would look at the old one.
        _Placed.check(self)
        _check_text(self, "namespace")
        _check_bool(self, "get_if_exists")
        _check_bool(self, "record")
        if self.get_if_exists and self.name is None:
            raise ValueError("get_if_exists=True needs a name to look for: .options(name=…, get_if_exists=True)")
        if self.lifetime not in {None, "detached", "non_detached"}:
            raise ValueError(f"lifetime must be None, 'detached' or 'non_detached', not {self.lifetime!r}")
        _check_repeats("max_restarts", self.max_restarts)
        _check_repeats("max_task_retries", self.max_task_retries)
        _check_retry(self.retry_exceptions)
        if self.max_concurrency is not None and not _is_count(self.max_concurrency):
            raise ValueError(f"max_concurrency must be a whole number from 1, not {self.max_concurrency!r}")
        _check_dict("concurrency_groups", self.concurrency_groups)
        for name, width in (self.concurrency_groups or {}).items():
            if not _is_count(width):
                raise ValueError(f"concurrency_groups[{name!r}] must be a whole number from 1, not {width!r}")
        if self.max_pending_calls != -1 and not _is_count(self.max_pending_calls):
            raise ValueError(f"max_pending_calls must be -1 or a whole number from 1, not {self.max_pending_calls!r}")
        if self.allow_out_of_order_execution is not None:
            _check_bool(self, "allow_out_of_order_execution")
        if self.isolation not in {"process", "thread"}:
            raise ValueError(f"isolation must be 'process' or 'thread', not {self.isolation!r}")
        if self.checkpoint is not None:
            parse_checkpoint(self.checkpoint)
        if self.isolation == "thread":
            _check_light(self)
        if not isinstance(self.replicas, int) or isinstance(self.replicas, bool) or self.replicas < 0:
            raise ArgumentError(f"replicas must be a whole number from 0, not {self.replicas!r}")

    @property
    def detached(self) -> bool:
        """Whether the actor outlives its maker."""
        return self.lifetime == "detached"


@travelling
@dataclass(frozen=True, slots=True)
class TaskOptions(_Placed):
    """How and where a function shall run.

    Attributes:
        num_returns: how many values it gives; ``"streaming"`` for a generator.
        max_retries: how often it is run again when its process died; -1 for ever.
        retry_exceptions: run it again also when it raised.
        timeout: seconds it may take in all.
    """

    num_returns: int | str | None = None
    max_retries: int = 0
    retry_exceptions: Retry = False
    timeout: float | None = None

    @property
    def of(self) -> str:
        """See `_Options`."""
        return "a task"

    def check(self) -> None:
        """See `_Options`."""
        _Placed.check(self)
        _check_returns(self.num_returns)
        _check_repeats("max_retries", self.max_retries)
        _check_retry(self.retry_exceptions)
        _check_amount("timeout", self.timeout)


@travelling
@dataclass(frozen=True, slots=True)
class MethodOptions(_Options):
    """How one method is called.

    Attributes:
        num_returns: how many values it gives, each a reference of its own; ``"streaming"`` for references one by one.
            None: streaming for generators, else 1.
        concurrency_group: the group of the actor's whose calls it runs among.
        max_task_retries: see `ActorOptions`; None takes the actor's.
        retry_exceptions: see `ActorOptions`; None takes the actor's.
        timeout: seconds from the call to its answer; the calls that it makes inherit what is left of them.
        name: how the call is shown in traces.
        public: whether clients in other languages may call it, with arrays and JSON; see ``docs/wire.md``.
    """

    num_returns: int | str | None = None
    concurrency_group: str | None = None
    max_task_retries: int | None = None
    retry_exceptions: Retry | None = None
    timeout: float | None = None
    name: str | None = None
    public: bool = False

    @property
    def of(self) -> str:
        """See `_Options`."""
        return "a method"

    def check(self) -> None:
        """See `_Options`."""
        _check_returns(self.num_returns)
        _check_bool(self, "public")
        _check_text(self, "concurrency_group", "name")
        if self.max_task_retries is not None:
            _check_repeats("max_task_retries", self.max_task_retries)
        if self.retry_exceptions is not None:
            _check_retry(self.retry_exceptions)
        _check_amount("timeout", self.timeout)


def parse_checkpoint(text: object) -> tuple[int | None, float | None]:
    """Reads ``"call"``, ``"100 calls"`` or ``"10s"``; returns the number of calls, or the seconds, between two.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(text, str):
        if text == "call":
            return 1, None
        count, _, unit = text.partition(" ")
        if unit == "calls" and count.isdecimal() and int(count):
            return int(count), None
        if text.endswith("s"):
            try:
                seconds = float(text[:-1])
            except ValueError:
                seconds = 0.0
            if isfinite(seconds) and seconds > 0:
                return None, seconds
    raise ValueError(f"checkpoint must be 'call', '100 calls' or '10s', not {text!r}")


def _check_light(options: ActorOptions) -> None:
    for name in ("num_cpus", "num_gpus", "memory", "resources"):
        if getattr(options, name):
            raise ValueError(
                f"a light actor (isolation='thread') shares its process with others and holds nothing for itself: "
                f"leave {name}= out, or isolation="
            )
    if options.runtime_env:
        raise ValueError(
            "a light actor (isolation='thread') shares its process with others, which has one environment: leave "
            "runtime_env= out, or isolation="
        )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_text(options: object, *names: str) -> None:
    for name in names:
        value = getattr(options, name)
        if value is not None and (not isinstance(value, str) or not value):
            raise ArgumentError(f"{name} must be a non-empty string, not {value!r}")


def _check_bool(options: object, name: str) -> None:
    if not isinstance(value := getattr(options, name), bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")


def _check_amount(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not isfinite(value) or value < 0:
        raise ValueError(f"{name} must be a number from 0, not {value!r}")


def _check_dict(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, dict) or not all(isinstance(key, str) and key for key in value):
        raise ArgumentError(f"{name} must be a dict with names as keys, not {value!r}")


def _check_repeats(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < -1:
        raise ArgumentError(f"{name} must be a whole number from 0, or -1 for no limit, not {value!r}")


def _check_retry(value: object) -> None:
    if isinstance(value, bool):
        return
    if not isinstance(value, tuple) or not all(isinstance(k, type) and issubclass(k, BaseException) for k in value):
        raise TypeError(f"retry_exceptions must be True, False or a list of exception classes, not {value!r}")


def _check_returns(value: object) -> None:
    if value is None or value in ("streaming", "dynamic"):
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"num_returns must be a whole number from 0, or 'streaming', not {value!r}")
