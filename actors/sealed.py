"""Sealed values: what a reference stands for, kept pickled until somebody asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.exceptions import ActorsError, SerializationError
from actors.failure import advised, unpack
from actors.frozen import frozen
from actors.messages import VALUE, Argument, Outcome, Payload
from actors.packages import explained
from actors.serialize import dumps, loads

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.messages import Reply


_CLEAR = (ActorsError, MemoryError)  # these say enough


@frozen
class Sealed:
    """A value or an error as it arrived."""

    outcome: Outcome
    payload: Payload

    def open(self) -> Any:
        """Returns the value, made anew, or raises the error."""
        __tracebackhide__ = True
        if self.outcome is VALUE:
            try:
                return loads(self.payload)
            except (ImportError, AttributeError) as error:
                raise explained(error) from error
            except _CLEAR:
                raise
            except Exception as error:
                raise _unreadable("the value", error) from error
        raise unpack(self.payload) if self.outcome is Outcome.RAISED else advised(loads(self.payload))


class Known(Sealed):
    """A value of `actors.messages.PLAIN_TYPES`, which cannot change and so needs not be made anew."""

    __slots__ = ("value",)
    value: object

    def __init__(self, value: object) -> None:
        self.outcome = VALUE  # type: ignore[misc]  # as `frozen` does, whose fields these are
        self.value = value

    def __getattr__(self, name: str) -> Any:
        if name != "payload":
            raise AttributeError(name)
        payload = dumps(self.value)  # it is passed on, which few are
        self.payload = payload  # type: ignore[misc]
        return payload

    def __reduce__(self) -> tuple[Any, ...]:
        return Sealed, (self.outcome, self.payload)

    def open(self) -> Any:
        """See `Sealed`."""
        return self.value


def of_reply(reply: Reply) -> Sealed:
    """Seals what a call was answered with."""
    assert isinstance(reply.payload, Payload)
    return Sealed(reply.outcome, reply.payload)


def of_value(value: object) -> Sealed:
    """Seals a value of this process; later changes to it are not seen."""
    return Sealed(Outcome.VALUE, dumps(value))


def of_error(error: BaseException) -> Sealed:
    """Seals an error of ours, such as the death of an actor."""
    return Sealed(Outcome.MAY_HAVE_RUN, dumps(error))


@frozen
class Slot:
    """The place of an argument that is a reference."""

    index: int


@frozen
class Filled:
    """Arguments whose references have been resolved, values still pickled."""

    arguments: Payload
    values: tuple[Payload, ...]


@frozen
class Several:
    """The values of one call that gives several, each pickled on its own."""

    values: tuple[Payload, ...]


def with_slots(
    args: tuple[Any, ...], kwargs: dict[str, Any], is_reference: Callable[[Any], bool]
) -> tuple[tuple[Any, ...], dict[str, Any], list[Any]]:
    """Takes the references at top level out of a call's arguments; nested ones stay where they are."""
    references: list[Any] = []
    if not kwargs and not any(map(is_reference, args)):
        return args, kwargs, references

    def slot(value: Any) -> Any:
        if not is_reference(value):
            return value
        references.append(value)
        return Slot(len(references) - 1)

    return tuple(slot(value) for value in args), {key: slot(value) for key, value in kwargs.items()}, references


def open_arguments(payload: Payload) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Unpickles a call's arguments, putting resolved references in their places."""
    if isinstance(payload, Argument):
        return (payload.value,), {}
    try:
        return _opened(payload)
    except (ImportError, AttributeError, *_CLEAR):
        raise
    except Exception as error:
        raise _unreadable("an argument", error) from error


def _opened(payload: Payload) -> tuple[tuple[Any, ...], dict[str, Any]]:
    arguments = loads(payload)
    if not isinstance(arguments, Filled):
        args, kwargs = arguments
        return args, kwargs
    args, kwargs = loads(arguments.arguments)
    values = arguments.values
    return (
        tuple(loads(values[v.index]) if isinstance(v, Slot) else v for v in args),
        {key: loads(values[v.index]) if isinstance(v, Slot) else v for key, v in kwargs.items()},
    )


def _unreadable(what: str, error: Exception) -> SerializationError:
    """Returns the error for what was pickled and cannot be made from that again."""
    return SerializationError(
        f"{what} was pickled, and cannot be unpickled where it is used: {type(error).__name__}: {error}. "
        "pickle.loads(pickle.dumps(value)) must give it back: define __reduce__ in its class"
    )
