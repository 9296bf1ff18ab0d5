"""Remote functions: what `@remote` makes of a function. Each call is a task, run once on a warm worker."""

from __future__ import annotations

import inspect
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from actors.calls import inherit, is_reference, open_call, returns_as_number
from actors.cluster import current
from actors.sealed import with_slots
from actors.serialize import dumps, dumps_arguments
from actors.spec import MethodSpec, signature_of
from actors.taskqueue import queue_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.messages import Payload
    from actors.options import TaskOptions

P = ParamSpec("P")
T = TypeVar("T")


class RemoteFunction(Generic[P, T]):
    """A function that runs on a worker anywhere in the cluster.

    Attributes:
        function: the plain function, for use here.
    """

    def __init__(self, function: Callable[P, T], options: TaskOptions) -> None:
        self.function = function
        self._options = options
        self._function = function  # Ray's name
        self._spec = _describe(function)
        self._code: Payload | None = None
        update_wrapper(self, function)

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the function once; returns at once.

        Returns:
            An `ObjectRef` of the result, a list of them where ``num_returns`` is more than 1; for a generator function
            an `ObjectRefGenerator`.

        Raises:
            TypeError: the arguments do not fit, or cannot be pickled.
        """
        self._spec.check(args, kwargs)
        queue = queue_for(current(), self._options)
        args, kwargs, references = with_slots(args, kwargs, is_reference)
        if self._code is None:
            self._code = dumps(self.function)
        payload = dumps_arguments((self._code, *args), kwargs)
        options = self._options
        returns = returns_as_number(options.num_returns, generates=self._spec.generates)
        opened, given = open_call(queue, self._spec.name, payload, references, returns)
        opened.retries = options.max_retries
        opened.retry_exceptions = options.retry_exceptions
        inherit(opened, options.timeout)
        queue.submit(opened)
        return given

    def map(self, values: Any) -> list[Any]:
        """Runs the function once for each value; returns the references in that order."""
        return [self.remote(value) for value in values]

    def options(self, **options: Any) -> RemoteFunction[P, T]:
        """Returns the same function with other options; see `actors.options.TaskOptions`."""
        return RemoteFunction(self.function, self._options.merged(**options))

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Refuses: a remote function is not called like a local one."""
        name = self._spec.name
        raise TypeError(f"use {name}.remote(...) to run it on a worker, or {name}.function(...) to run it here")

    def __reduce__(self) -> tuple[Any, ...]:
        return (RemoteFunction, (self.function, self._options))

    def __repr__(self) -> str:
        return f"RemoteFunction({self._spec.name}{self._spec.signature})"


def _describe(function: Callable[..., Any]) -> MethodSpec:
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{function.__name__} is async, and a task has no event loop: make it a plain function that calls "
            "asyncio.run, or a method of an actor"
        )
    name = getattr(function, "__name__", type(function).__name__)
    return MethodSpec(name, signature_of(function), inspect.isgeneratorfunction(function))
