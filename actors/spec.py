"""What an actor is, as data: its class's methods, where it shall live, and the group it is in."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass, field
from types import ClassMethodDescriptorType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from actors.costs import Costs
from actors.frozen import travelling
from actors.options import MethodOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.address import Address
    from actors.demand import Demand
    from actors.environment import Environment
    from actors.messages import Payload
    from actors.options import Retry

METHOD_OPTIONS = "__actors_method__"
"""Attribute in which `actors.method` leaves a method's options."""

DEFAULTS = MethodOptions()
LONGEST_DOC = 120  # characters of a docstring that travel with a handle

_EMPTY = inspect.Parameter.empty
_ANYTHING = inspect.Signature(
    [
        inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
        inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
    ]
)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@travelling
@dataclass(frozen=True, slots=True)
class MethodSpec:
    """One method of an actor class.

    Attributes:
        name: as called.
        signature: without ``self``; defaults and annotations are replaced by marks, since they need not pickle.
        generates: whether it is a generator, so that its values are given one by one.
        options: as `actors.method` has set them.
        doc: first line of its docstring, which is short, since handles travel.
        fewest: positional arguments that it needs, where it needs nothing else; more than ``most`` otherwise.
        most: positional arguments that it takes.
    """

    name: str
    signature: inspect.Signature
    generates: bool
    options: MethodOptions = DEFAULTS
    doc: str | None = None
    fewest: int = field(init=False, compare=False, repr=False)
    most: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        fewest, most = _positions(self.signature)
        object.__setattr__(self, "fewest", fewest)
        object.__setattr__(self, "most", most)

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raises TypeError where the arguments do not fit, as the call itself would."""
        if not kwargs and self.fewest <= len(args) <= self.most:
            return
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}{self.signature}: {error}") from None


def _positions(signature: inspect.Signature) -> tuple[int, int]:
    """Returns how many positional arguments are enough, and how many are too many but for one."""
    parameters = signature.parameters.values()
    if any(p.kind is inspect.Parameter.KEYWORD_ONLY and p.default is _EMPTY for p in parameters):
        return 1, 0
    positional = [p for p in parameters if p.kind in _POSITIONAL]
    endless = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters)
    return sum(p.default is _EMPTY for p in positional), sys.maxsize if endless else len(positional)


@travelling
@dataclass(frozen=True, slots=True)
class ClassSpec:
    """What a handle knows of its actor's class.

    Attributes:
        name: of the class.
        methods: by name.
        constructor: its ``__init__``.
        is_async: whether a method is a coroutine.
        packed: itself as it travels in handles, once it has.
    """

    name: str
    methods: dict[str, MethodSpec]
    constructor: MethodSpec
    is_async: bool
    packed: bytes | None = field(default=None, init=False, compare=False, repr=False)


@travelling
@dataclass(frozen=True, slots=True)
class Manner:
    """How an actor wants to be called; travels with its handle. See `actors.options.ActorOptions`.

    Attributes:
        restarts: whether it is made anew when its process has died.
        retries: how often a call is sent again that a death may have cut off.
        retry_exceptions: what a call is sent again for that its method raised.
        max_pending: calls that one process may have waiting; -1 for the line's own bound.
        out_of_order: whether a call may overtake one that waits for its arguments.
        moves: whether it may come to live in another process, with its state.
        survives: whether another node may come to have charge of it.
    """

    restarts: bool = False
    retries: int = 0
    retry_exceptions: Retry = False
    max_pending: int = -1
    out_of_order: bool = False
    moves: bool = False
    survives: bool = False

    @property
    def follows(self) -> bool:
        """Whether one who calls it looks for it again when its process has ended."""
        return self.restarts or self.moves


class _Default:
    """Stands for a default value in a signature that travels."""

    def __repr__(self) -> str:
        return "…"

    def __reduce__(self) -> str:
        return "DEFAULT"


DEFAULT = _Default()


def describe(cls: type) -> ClassSpec:
    """Reads a class: its methods, those with two underscores that it defines itself among them, and its constructor."""
    known = _described.get(cls)
    if known is None:
        known = _described[cls] = _describe(cls)
    return known


# Weakly: a class made in a function keeps what it uses there, which may be a handle.
_described: WeakKeyDictionary[type, ClassSpec] = WeakKeyDictionary()


def _describe(cls: type) -> ClassSpec:
    methods = {}
    is_async = False
    for name, value in inspect.getmembers(cls, callable):
        if name.startswith("__") and not _is_own(name, value):
            continue
        function = inspect.unwrap(value) if not isinstance(value, type) else value
        is_async = is_async or inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        streams = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
        options = getattr(function, METHOD_OPTIONS, DEFAULTS)
        methods[name] = MethodSpec(name, _signature(cls, name), streams, options, _doc(function))
    return ClassSpec(cls.__name__, methods, MethodSpec(cls.__name__, _signature(cls, "__init__"), False), is_async)


def _is_own(name: str, value: Any) -> bool:
    """Whether a special method is one that a class has written and that means nothing to a handle itself."""
    return inspect.isfunction(value) and name not in vars(object) and not name.startswith("__actor_")


def _doc(function: Any) -> str | None:
    doc = getattr(function, "__doc__", None)
    if not isinstance(doc, str) or not (doc := doc.strip()):
        return None
    return doc.splitlines()[0][:LONGEST_DOC]


def _signature(cls: type, name: str) -> inspect.Signature:
    try:
        signature = inspect.signature(cls if name == "__init__" else getattr(cls, name))
    except (TypeError, ValueError):  # some built-ins do not say
        return _ANYTHING
    parameters = list(signature.parameters.values())
    if name != "__init__" and _takes_self(cls, name) and parameters and parameters[0].kind in _POSITIONAL:
        parameters = parameters[1:]
    return _plain(parameters)


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Returns the signature of a function as it travels; see `MethodSpec`."""
    try:
        return _plain(list(inspect.signature(function).parameters.values()))
    except (TypeError, ValueError):  # some built-ins do not say
        return _ANYTHING


def _plain(parameters: list[inspect.Parameter]) -> inspect.Signature:
    plain = [
        parameter.replace(annotation=_EMPTY, default=parameter.default if parameter.default is _EMPTY else DEFAULT)
        for parameter in parameters
    ]
    return inspect.Signature(plain)


def _takes_self(cls: type, name: str) -> bool:
    """Whether looking the attribute up on an instance binds it; a built-in function or a class among them does not."""
    value = inspect.getattr_static(cls, name)
    binds = hasattr(type(value), "__get__")
    return binds and not isinstance(value, staticmethod | classmethod | ClassMethodDescriptorType)


@travelling
@dataclass(frozen=True, slots=True)
class GroupSpec:
    """An actor's place in its group.

    Attributes:
        id: of the group.
        rank: this actor's, from 0.
        members: where each rank's process is.
        labels: how each rank is called in messages.
        backend: what carries arrays: ``"auto"``, ``"shm"`` or ``"grpc"``.
        costs: of the ways between the ranks, by which theirs is chosen; the same on all.
    """

    id: str
    rank: int
    members: tuple[Address, ...]
    labels: tuple[str, ...]
    backend: str = "auto"
    costs: Costs = field(default_factory=Costs)


@travelling
@dataclass(frozen=True, slots=True)
class ActorSpec:
    """What a node needs to know to place an actor. Never holds code of the user's.

    Attributes:
        id: the actor's id.
        label: how it is called in messages, such as ``"Counter(actor-3f9c0a12b7de)"``.
        class_name: name of its class.
        name: its name in the namespace, if it has one.
        namespace: where the name holds.
        owner: process the actor ends with.
        driver: process that shows what the actor prints; None for nobody.
        handle: pickled handle, for whoever asks by name.
        demand: what it needs to be placed, and holds from then on.
        environment: what its process is started in; None for the node's own.
        fingerprint: of its class, where it has a name; see `actors.fingerprint`.
        moves: whether it can be moved; see `Manner`.
        restarts: whether it may be made anew, so that its name is kept for it.
        life: how often it was made before.
        task: whether it runs tasks, and so is no actor of the user's.
        host: whether it hosts light actors, and so is none either.
        light: whether it shares a process with others.
    """

    id: str
    label: str
    class_name: str
    name: str | None
    namespace: str
    owner: str
    driver: Address | None
    handle: Payload | None
    demand: Demand
    restarts: bool = False
    life: int = 0
    task: bool = False
    host: bool = False
    light: bool = False
    environment: Environment | None = None
    fingerprint: str = ""
    moves: bool = False


@travelling
@dataclass(frozen=True, slots=True)
class Construction:
    """What an actor's process is told to become one.

    Attributes:
        code: the class, pickled by value or by reference.
        spec: what it is.
        arguments: of its constructor, see `actors.sealed.open_arguments`.
        max_concurrency: how many calls may run at once.
        is_async: whether its methods run on an event loop.
        group: its place in a group, if it is in one.
        state: what its ``__actor_save__`` gave last, in an earlier life.
        concurrency_groups: how many calls of each further group of methods may run at once.
        checkpoint: after how many calls, or seconds, its state is taken; None for never.
        keeper: process in whose charge it is, which keeps its state.
        record: whether its calls are recorded, see `actors.record`.
        trace: what its first making is part of; see `actors.tracing`.
    """

    code: Payload
    spec: ActorSpec
    arguments: Payload
    max_concurrency: int | None
    is_async: bool
    group: GroupSpec | None
    state: Payload | None = None
    concurrency_groups: dict[str, int] | None = None
    checkpoint: tuple[int | None, float | None] | None = None
    keeper: Address | None = None
    record: bool = False
    trace: str = ""
