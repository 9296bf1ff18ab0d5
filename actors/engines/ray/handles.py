"""Handles on Ray: each stands for one of Ray's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.common import COMMON
from actors.exceptions import ArgumentError
from actors.handle import ActorHandle, RemoteMethod
from actors.signed import Signed, signed
from actors.spec import DEFAULTS

from .errors import TransientError, sending, short
from .hosting import AGAIN
from .refs import unwrapped, wrapped
from .translation import kinds, of_method

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.options import MethodOptions
    from actors.spec import ClassSpec, MethodSpec

    from .hosting import Manner


class RayHandle(ActorHandle[Any]):
    """An actor that Ray runs.

    Args:
        raw: Ray's own handle.
        label: how it is called in messages.
        spec: its class's methods.
        manner: how it wants to be called.
    """

    __slots__ = ("_name", "_raw", "_wants")  # beside the methods of the user's class, which may have any name

    def __init__(self, raw: Any, label: str, spec: ClassSpec, manner: Manner) -> None:
        self._raw, self._wants = raw, manner
        # Ray has no other name for it, and its client another.
        self._id = raw._actor_id.hex() if hasattr(raw, "_actor_id") else raw.actor_ref.id.hex()  # noqa: SLF001
        self._name, self._label = label, f"{label}({short(self._id)})"
        self._spec = spec

    def _method(self, method: MethodSpec) -> RayMethod:
        return RayMethod(self, method)

    def __hash__(self) -> int:
        return hash(self._id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RayHandle) and other._id == self._id

    def __reduce__(self) -> tuple[Any, ...]:
        return (RayHandle, (self._raw, self._name, self._spec, self._wants))


class RayMethod(RemoteMethod[..., Any]):
    """A method of an actor that Ray runs."""

    __slots__ = ()

    @signed
    def remote(self) -> Any:
        """See `RemoteMethod`."""
        return Signed(_call, self._method, self._handle, self._options)

    def map(self, values: Iterable[Any]) -> list[Any]:
        """See `RemoteMethod`; on Ray each call is a message of its own."""
        return [self.remote(value) for value in values]

    def options(self, **options: Any) -> RayMethod:
        """See `RemoteMethod`."""
        if "public" in options:
            raise ArgumentError("public= belongs to the method: @actors.method(public=True) in its class")
        chosen = self._options if self._options is not None else DEFAULTS
        return RayMethod(self._handle, self._method, chosen.merged(**options))


def _call(method: MethodSpec, handle: RayHandle, options: MethodOptions | None, /, *args: Any, **kwargs: Any) -> Any:
    method.check(args, kwargs)
    plain, named = unwrapped(args, kwargs)
    raw, wants, what = handle._raw, handle._wants, f"{handle._label}.{method.name}"  # noqa: SLF001 - ours
    if method.name in COMMON:
        with sending(plain, named):
            given = raw._actors_common.remote(method.name, *plain, **named)  # noqa: SLF001 - ours
        return wrapped(given, None, what)
    both = {**of_method(method.options, method.generates), **(of_method(options, method.generates) if options else {})}
    if again := kinds(both.pop("retry_exceptions", wants.again)):
        both["retry_exceptions"], named[AGAIN] = [TransientError], again
    group = both.get("concurrency_group")
    if group is not None and group not in wants.groups:
        return wrapped(raw._actors_no_group.remote(method.name, group), None, what)  # noqa: SLF001 - ours
    ray_method = getattr(raw, method.name)
    with sending(plain, named):
        given = (ray_method.options(**both) if both else ray_method).remote(*plain, **named)
    return wrapped(given, both.get("num_returns"), what)
