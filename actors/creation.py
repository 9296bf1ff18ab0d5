"""How actors come to be: what is wanted is described, and somebody takes charge of it."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from actors import device, face, runtime, tracing
from actors.blueprints import blueprint
from actors.calls import is_reference
from actors.cluster import current, environment_for
from actors.constructor import resolved
from actors.demand import demand_of
from actors.exceptions import ActorAlreadyExistsError, ActorDiedError, ActorError
from actors.fingerprint import differ, fingerprint
from actors.group import ActorGroup
from actors.handle import ActorHandle, hold_of, placed_at
from actors.ids import new_id
from actors.line import Line
from actors.lodging import take_charge
from actors.saving import checkpoint_of, moves
from actors.sealed import with_slots
from actors.serialize import dumps, dumps_arguments, loads, travels_by_value
from actors.spec import ActorSpec, Construction, GroupSpec, Manner, describe
from actors.version import PYTHON

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

    from actors.charge import Charge
    from actors.holdings import Hold
    from actors.messages import Payload
    from actors.options import ActorOptions
    from actors.process import Process
    from actors.sealed import Sealed

log = logging.getLogger(__name__)
NAME_SECONDS = 10.0  # for the end of an actor that has a name and is not referred to any more
RETRY_SECONDS = 0.02


def create_actor(cls: type, options: ActorOptions, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ActorHandle:
    """Makes one actor. A named one is made before this returns, since the name may be taken."""
    process = current()
    name, space = options.name or "", options.namespace or process.namespace
    until = time.monotonic() + NAME_SECONDS
    while True:
        if (
            name is not None
            and options.get_if_exists
            and (found := process.portal.run(find_named(process, name, space)))
        ):
            process.portal.run(_refuse_older(process, found, cls, name))
            return found
        try:
            return _make(process, cls, options, args, kwargs)
        except ActorAlreadyExistsError:  # by one that another made just now, or that nobody refers to and that ends
            is_ending = options.get_if_exists or process.portal.run(find_named(process, name or "", space)) is None
            if not is_ending or time.monotonic() > until:
                raise
            time.sleep(RETRY_SECONDS)


def _make(
    process: Process, cls: type, options: ActorOptions, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ActorHandle:
    if options.detached:
        return _hand_over(process, cls, options, args, kwargs)
    creation = _Creation(process, cls, options, args, kwargs)
    handle = creation.begin()
    if options.name is not None:
        process.portal.run(creation.placed())
    return handle


def _hand_over(
    process: Process, cls: type, options: ActorOptions, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ActorHandle:
    """Makes an actor that is in the charge of a node, and so outlives this program."""
    creation = _Creation(process, cls, options, args, kwargs)
    process.portal.run(creation.hand_over())
    if process.warns_of_detached:
        process.warns_of_detached = False
        log.warning(
            "%r is detached, and yet ends with this program, as all nodes do that init() started for it alone. "
            "One lives on in the cluster of devices that are paired, on a node that `actors start` started",
            creation.handle,
        )
    return creation.handle


def create_group(
    cls: type, options: ActorOptions, size: int, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ActorGroup:
    """Makes a group of actors: all are placed first, so that each knows all others when its constructor runs.

    Raises:
        ValueError: an option that the members of a group cannot have.
    """
    if options.max_restarts or options.detached:
        raise ValueError("max_restarts= and lifetime= are not for groups: one of a group cannot come back alone")
    if options.isolation == "thread":
        raise ValueError("isolation='thread' is not for groups: each rank of a collective has a process of its own")
    process = current()
    group = GroupSpec(new_id("group"), 0, (), (), costs=device.costs())
    code = blueprint(cls)  # once for all, unless it holds what is counted for each message that it is in
    shared = None if code.holds or code.shared else code
    creations = [
        _Creation(process, cls, options, args, kwargs, replace(group, rank=rank), shared) for rank in range(size)
    ]
    charges = [creation.charge for creation in creations]
    labels = tuple(f"{options.name or cls.__name__}[{rank}]" for rank in range(size))
    handles = []
    try:
        for creation in creations:
            creation.charge.siblings = charges
            creation.charge.labels = labels
            handles.append(creation.begin())
    except BaseException:  # Ctrl-C: those begun would wait for their siblings
        for charge in charges:
            error = ActorDiedError(f"{charge.spec.label} was not made: making its group was interrupted")
            process.portal.soon(charge.give_up, error)
        raise
    return ActorGroup(group.id, handles)


class _Creation:
    """The making of one actor, up to the point where it is in somebody's charge."""

    def __init__(  # noqa: PLR0917 - one place makes it
        self,
        process: Process,
        cls: type,
        options: ActorOptions,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        group: GroupSpec | None = None,
        code: Payload | None = None,
    ) -> None:
        self._process = process
        self._keeper = process.address
        self._options = options
        self._class = describe(cls)
        self._manner = replace(_manner(options), moves=moves(cls) and group is None and options.isolation == "process")
        self._environment = environment_for(process, options.runtime_env)
        self._fingerprint = fingerprint(cls) if options.name is not None else ""
        self._python = PYTHON if travels_by_value(cls) else None
        self._id = new_id("actor")
        # One in the charge of a node is counted by nobody.
        self._hold = process.holdings.hold(self._id, None if options.detached else process.address)
        label = options.name if group is None else f"{options.name or cls.__name__}[{group.rank}]"
        self._label = f"{label or cls.__name__}({self._id})"
        args, kwargs, references = with_slots(args, kwargs, is_reference)
        needs: list[Future[Sealed]] = [reference.pending for reference in references]
        self._needs = needs
        span, trace = tracing.begin_making(cls.__name__)
        self._construction = construction = Construction(
            code=code or blueprint(cls),  # a class that cannot travel is the caller's mistake, here and now
            spec=self._describe(group),
            arguments=dumps_arguments(args, kwargs),
            max_concurrency=options.max_concurrency,
            is_async=self._class.is_async,
            group=group,
            concurrency_groups=options.concurrency_groups,
            checkpoint=checkpoint_of(cls, options),
            record=options.record,
            trace=trace,
        )
        self._making = _Making(span) if span is not None else None
        ended = partial(_ended, process, self._id, self._making)
        self.charge = take_charge(process, construction, options.max_restarts, needs, ended)

    def _describe(self, group: GroupSpec | None) -> ActorSpec:
        name = self._options.name
        if name is not None and group is not None:
            name = f"{name}-{group.rank}"
        light = self._options.isolation == "thread"
        return ActorSpec(
            id=self._id,
            label=self._label,
            class_name=self._class.name,
            name=name,
            namespace=self._options.namespace or self._process.namespace,
            owner=self._keeper.process,
            driver=runtime.driver(),
            # A name alone keeps no actor alive.
            handle=replace(dumps(self.handle), holds=()),  # for whoever asks by name, and for the actor itself
            demand=demand_of(self._options, shares=light, python=self._python),
            restarts=self._manner.restarts,
            moves=self._manner.moves,
            light=light,
            environment=self._environment,
            fingerprint=self._fingerprint,
        )

    @property
    def handle(self) -> ActorHandle:
        """A handle of the actor."""
        return ActorHandle(self._id, self._label, self._class, self._manner, self._keeper, None, self._hold)

    def begin(self) -> ActorHandle:
        """Takes charge of the actor here; returns its handle."""
        keeper = self._process.keeper
        line = Line(self._process, self._id, self._label, self._manner, self.charge.located, self.charge.doomed)
        keeper.charges[self._id] = self.charge
        keeper.lines[self._id] = line
        maker = runtime.myself()
        if maker is not None and maker.made is not None:
            maker.made.append(self._id)
        elif face.current.adopt is not None:
            face.current.adopt(self.charge)
        line.held_by(self._hold)
        keeper.when_free(self._id, partial(_retire, self._process, self._id))
        self._process.portal.soon(_set_out, self.charge, line)
        if self._making is not None:
            self._making.follow(self._process, self.charge)
        return self.handle

    async def hand_over(self) -> None:
        """Gives the actor into the charge of a node that has room for it."""
        try:
            await self._hand_over()
        except BaseException as error:
            if self._making is not None:
                self._making.over(type(error).__name__)
            raise
        if self._making is not None:
            self._making.over(None)

    async def _hand_over(self) -> None:
        node = await self._process.ask_home("schedule", self._construction.spec, timeout=None)
        self._keeper = node
        construction = replace(self._construction, spec=self._describe(None))
        construction = await resolved(construction, self._needs)
        terms = (self._options.max_restarts, self._options.replicas)
        await self._process.ask(node, "custody", "adopt", construction, *terms, timeout=None)

    async def placed(self) -> None:
        """Waits until the actor has a place; raises what kept it from that as its own error."""
        try:
            await self.charge.located(None)
        except ActorError as error:
            raise error.__cause__ or error from None


# What follows is kept for as long as the actor is, and must not keep the actor.


def _set_out(charge: Charge, line: Line) -> None:
    """Has an actor made, and its line look for it. Together, since each wake of the loop is a pause of who makes it."""
    charge.begin()
    line.search()


class _Making:
    """The making of an actor as part of a trace, until its constructor is over.

    Args:
        span: its part of the trace.
    """

    def __init__(self, span: Any) -> None:
        self._span = span
        self._following: Future[None] | None = None

    def follow(self, process: Process, charge: Charge) -> None:
        """Waits for that; where the actor ends before, `over` is called."""
        self._following = process.portal.start(self._follow(charge))

    async def _follow(self, charge: Charge) -> None:
        await charge.constructed()
        self.over(None)

    def over(self, error: str | None) -> None:
        """It has been made; or will not be, because of ``error``."""
        span, self._span = self._span, None
        if span is not None:
            tracing.answered(span, error)
        if error is not None and self._following is not None:
            self._following.cancel()


def _ended(process: Process, actor: str, making: _Making | None, error: ActorError) -> None:
    if making is not None:
        making.over(type(error.__cause__ or error).__name__)
    line = process.keeper.lines.get(actor)
    if line is not None:
        line.fail(error)


def _retire(process: Process, actor: str) -> None:
    """Nothing refers to an actor any more. On the I/O loop."""
    charge = process.keeper.charges.pop(actor, None)
    if charge is not None:
        task = process.loop.create_task(charge.retire())
        _retiring.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(_retiring.discard)


_retiring: set[asyncio.Task[None]] = set()


def _manner(options: ActorOptions) -> Manner:
    return Manner(
        restarts=options.max_restarts != 0,
        retries=options.max_task_retries,
        retry_exceptions=options.retry_exceptions,
        max_pending=options.max_pending_calls,
        out_of_order=bool(options.allow_out_of_order_execution),
        survives=options.detached,
    )


async def _refuse_older(process: Process, found: ActorHandle, cls: type, name: str) -> None:
    """Raises where a named actor is of another version of the class that it is now asked for with."""
    where = found._where  # noqa: SLF001 - one of us
    node = await process.node_address(where.node) if where is not None else None
    if node is None:
        return
    origin = await process.ask(node, "node", "origin", found._id)  # noqa: SLF001 - one of us
    if origin is None or not differ(origin[0], fingerprint(cls)):
        return
    raise ActorAlreadyExistsError(
        f"the actor named {name!r} runs another version of class {cls.__name__}: {found!r} was made "
        f"{_ago(origin[1])} ago on node {node.node_name}, and the class has changed since. End it by "
        f"actors.kill(actors.get_actor({name!r})), take it as it is by actors.get_actor({name!r}), or use another name"
    )


def _ago(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


async def find_named(process: Process, name: str, namespace: str) -> ActorHandle | None:
    """Asks the cluster for the handle of a named actor."""
    found = await process.ask_home("lookup", name, namespace)
    if found is None:
        return None
    payload, where = found
    handle: ActorHandle = loads(payload)
    return placed_at(handle, where) if await _is_kept(process, hold_of(handle)) else None


async def _is_kept(process: Process, hold: Hold) -> bool:
    """Whether an actor was not free before this process began to hold it: nothing but a name has led to it."""
    if hold.owner is None or hold.id in process.holdings.myself:
        return True
    if hold.owner.process == process.id:
        return process.holdings.is_held(hold.id, process.id)
    process.holdings.flush()  # the owner hears of the hold first
    try:
        kept: bool = await process.ask(hold.owner, "keeper", "holds", hold.id)
    except (ActorDiedError, TimeoutError):
        return False
    return kept
