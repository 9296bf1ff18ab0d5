"""Public methods: what a client in another language may call. Arguments and values are data, never pickles of its."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actors.exceptions import ActorsError, ArgumentError, SerializationError
from actors.spec import METHOD_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

PUBLIC = "__public__"  # the method by which a node passes such a call on


class NoActorError(ActorsError):
    """No actor has the name."""


class NotPublicError(ArgumentError):
    """There is no such method, or none that is public."""


@dataclass(frozen=True, slots=True)
class Part:
    """An argument or a value in one of the three forms.

    Attributes:
        kind: ``"tensor"``, ``"numpy"`` (a ``.npy`` file) or ``"json"``.
        data: its bytes.
        shape: of a tensor.
        dtype: of a tensor.
        library: ``"numpy"`` or ``"mlx"``: what a tensor is to become, or was.
    """

    kind: str
    data: bytes
    shape: tuple[int, ...] = ()
    dtype: str = ""
    library: str = "numpy"

    def value(self) -> Any:
        """Returns it as a Python value; an array is read-only.

        Raises:
            ArgumentError: its bytes are not what it says.
        """
        from actors import arrays

        try:
            if self.kind == "json":
                return json.loads(self.data)
            if self.kind == "numpy":
                return arrays.from_npy(self.data)
            arrays.check_tensor(len(self.data), self.shape, self.dtype, self.library)
            kind: arrays.Kind = "mlx" if self.library == "mlx" else "numpy"
            return arrays.from_tensor(self.data, self.shape, self.dtype, kind)
        except (ValueError, RecursionError) as error:
            raise ArgumentError(f"an argument is no {self.kind}_data: {error}") from error

    @classmethod
    def of(cls, value: Any) -> Part:
        """Returns a value as a part: arrays as tensors, or where there is no such dtype as ``.npy``; all else as JSON.

        Raises:
            SerializationError: it is neither an array nor JSON.
        """
        from actors import arrays

        library = arrays.kind_of(value)
        if library == "mlx" or (library == "numpy" and arrays.is_tensor(value)):
            data, shape, dtype = arrays.to_tensor(value)
            return cls("tensor", bytes(data), tuple(shape), dtype, library)
        try:
            if library == "numpy":
                return cls("numpy", arrays.to_npy(value))
            return cls("json", json.dumps(value, allow_nan=False).encode())
        except (TypeError, ValueError, RecursionError) as error:
            raise SerializationError(
                f"a public method returned a {type(value).__name__}, which is no array and no JSON: {error}"
            ) from error


def call_public(thing: Any, method: str, parts: Sequence[Part], /) -> Part | Coroutine[Any, Any, Part]:
    """Calls a public method of an actor's object.

    Returns:
        Its value as a part, or for a coroutine method a coroutine that gives it.

    Raises:
        NotPublicError: there is no such public method.
        ArgumentError: an argument is not what it says.
        TypeError: the arguments do not fit.
    """
    function = getattr(type(thing), method, None)
    options = getattr(inspect.unwrap(function), METHOD_OPTIONS, None) if callable(function) else None
    if options is None or not options.public:
        raise NotPublicError(
            f"{type(thing).__name__} has no public method {method!r}: a method that clients in other languages may "
            "call is marked with @actors.method(public=True)"
        )
    arguments = [part.value() for part in parts]
    bound = getattr(thing, method)
    try:
        inspect.signature(bound).bind(*arguments)
    except TypeError as error:
        raise ArgumentError(f"{method}: {error}") from None
    result = bound(*arguments)
    return _awaited(result) if inspect.isawaitable(result) else Part.of(result)


async def _awaited(result: Any) -> Part:
    return Part.of(await result)
