"""Remote functions: what `@remote` makes of a function. Each call is a task, run once on a warm worker."""

from __future__ import annotations

import inspect
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Generic, cast

from actors.calls import inherit, is_reference, open_call, returns_as_number
from actors.cluster import current, environment_for
from actors.engine import chosen
from actors.sealed import with_slots
from actors.serialize import dumps, dumps_arguments, travels_by_value
from actors.signed import Signed, signed
from actors.spec import MethodSpec, signature_of
from actors.taskqueue import queue_for
from actors.version import PYTHON

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import overload

    from typing_extensions import ParamSpec, TypeVar

    from actors.environment import Environment
    from actors.marked import Call
    from actors.messages import Payload
    from actors.options import TaskOptions
    from actors.process import Process

    P = ParamSpec("P", default=...)  # a checker knows defaults, which the oldest Python here does not
    R = TypeVar("R", default=Any)
else:
    from typing import ParamSpec, TypeVar

    P, R = ParamSpec("P"), TypeVar("R")


class RemoteFunction(Generic[P, R]):
    """A function that runs on a worker anywhere in the cluster; a call of it gives an ``R``.

    Attributes:
        function: the plain function, for use here.
    """

    def __init__(self, function: Callable[P, Any], options: TaskOptions) -> None:
        self.function = function
        self.chosen_options = options
        self._function = function  # Ray's name
        self.spec = _describe(function)
        self._code: Payload | None = None
        self._python: str | None = None
        self._environment: tuple[Process, Environment | None] | None = None
        update_wrapper(cast("Any", self), function)

    @signed
    def remote(self) -> Call[P, R]:
        """Runs the function once; returns at once.

        Returns:
            An `ObjectRef` of the result, a list of them where ``num_returns`` is more than 1; for a generator function
            an `ObjectRefGenerator`.

        Raises:
            TypeError: the arguments do not fit, or cannot be pickled.
        """
        return Signed(_run, self.function, self)

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.spec.check(args, kwargs)
        return chosen().run_task(self, args, kwargs)

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs the function on a worker of this package's own engine."""
        process = current()
        if self._python is None:  # only now: at its own definition its module does not know it yet
            self._python = PYTHON if travels_by_value(self.function) else ""
        queue = queue_for(process, self.chosen_options, self._environment_in(process), self._python or None)
        args, kwargs, references = with_slots(args, kwargs, is_reference)
        if self._code is None:
            self._code = dumps(self.function)
        payload = dumps_arguments((self._code, *args), kwargs)
        options = self.chosen_options
        returns = returns_as_number(options.num_returns, generates=self.spec.generates)
        opened, given = open_call(queue, self.spec.name, payload, references, returns)
        opened.retries = options.max_retries
        opened.retry_exceptions = options.retry_exceptions
        inherit(opened, options.timeout)
        queue.submit(opened)
        return given

    def _environment_in(self, process: Process) -> Environment | None:
        """Returns what it runs in; like the code, that is how it was when the function was first run."""
        if self._environment is None or self._environment[0] is not process:
            self._environment = process, environment_for(process, self.chosen_options.runtime_env)
        return self._environment[1]

    def map(self, values: Iterable[Any]) -> list[R]:
        """Runs the function once for each value; returns the references in that order."""
        return [self._run((value,), {}) for value in values]

    if TYPE_CHECKING:

        @overload
        def options(self, *, num_returns: int | str, **options: Any) -> RemoteFunction[P, Any]: ...
        @overload
        def options(self, **options: Any) -> RemoteFunction[P, R]: ...

    def options(self, **options: Any) -> Any:
        """Returns the same function with other options; see `actors.options.TaskOptions`."""
        return RemoteFunction(self.function, self.chosen_options.merged(**options))

    if not TYPE_CHECKING:  # what only refuses is an error for a type checker without it

        def __call__(self, *_: Any, **__: Any) -> Any:
            """Refuses: a remote function is not called like a local one."""
            name = self.spec.name
            raise TypeError(f"use {name}.remote(...) to run it on a worker, or {name}.function(...) to run it here")

    def __reduce__(self) -> tuple[Any, ...]:
        return (RemoteFunction, (self.function, self.chosen_options))

    def __repr__(self) -> str:
        return f"RemoteFunction({self.spec.name}{self.spec.signature})"


def _run(_: Callable[..., Any], function: RemoteFunction[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    return function._run(args, kwargs)  # noqa: SLF001 - it is its own


def _describe(function: Callable[..., Any]) -> MethodSpec:
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{function.__name__} is async, and a task has no event loop: make it a plain function that calls "
            "asyncio.run, or a method of an actor"
        )
    name = getattr(function, "__name__", type(function).__name__)
    return MethodSpec(name, signature_of(function), inspect.isgeneratorfunction(function))
