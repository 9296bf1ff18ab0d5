"""Signed calls: what ``.remote`` is, so that an interactive shell shows what it takes."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

from actors.spec import MethodSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    signed = property
else:

    class signed:  # noqa: N801 - it is written like `property`
        """A property for calls. IPython shows a property itself, and not what it gives."""

        def __init__(self, make: Callable[[Any], Signed]) -> None:
            self._make = make
            self.__doc__ = make.__doc__

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            return self if instance is None else self._make(instance)


class Signed(partial[Any]):
    """A call with the signature and the docstring of what it calls, which is its first argument.

    A partial, since that costs a call next to nothing; both are looked up when somebody asks.
    """

    @property
    def __signature__(self) -> inspect.Signature:
        what = self.args[0]
        return what.signature if isinstance(what, MethodSpec) else inspect.signature(what)

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        what = self.args[0]
        return what.doc if isinstance(what, MethodSpec) else inspect.getdoc(what)

    @property
    def __name__(self) -> str:
        return "remote"

    def __repr__(self) -> str:
        what = self.args[0]
        name = what.name if isinstance(what, MethodSpec) else getattr(what, "__qualname__", repr(what))
        return f"<remote call of {name}>"
