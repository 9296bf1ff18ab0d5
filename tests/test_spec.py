"""What a handle knows of a class: which calls its methods take, however they were made."""

from __future__ import annotations

import functools
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from actors.serialize import dumps, loads
from actors.spec import MethodSpec, describe

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


def bare(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that says nothing of what it wraps."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def kept(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator as it should be."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("never")


class Callable3:
    def __call__(self, a: int) -> int:
        return a


class Everything(dict):  # type: ignore[type-arg]
    size = len
    Inner = Unpicklable
    shout = Callable3()
    field = 3

    def __init__(self, start: int, *, step: int = 1) -> None:
        self.start = start

    def plain(self, a: int, b: Any = Unpicklable(), *rest: int, key: str, **more: Any) -> None: ...  # noqa: B008

    @staticmethod
    def static(a: int, b: int = 2) -> None: ...

    @classmethod
    def of_class(cls, a: int) -> None: ...

    @bare
    def barely(self, a: int) -> None: ...

    @kept
    def keeping(self, a: int) -> None: ...

    partial = functools.partialmethod(plain, 1)

    def only_names(self, /, *, key: int) -> None: ...

    def no_self(*args: Any) -> None: ...

    def yields(self) -> Iterator[int]:
        yield 1

    def __call__(self, a: int) -> None: ...

    def __len__(self) -> int:
        return 0

    @property
    def seen(self) -> Callable[[], int]:
        raise AssertionError("nobody asked")


METHODS = describe(Everything).methods


@pytest.mark.parametrize(
    ("name", "fits", "does_not"),
    [
        ("plain", "f(1, key='k'); f(1, 2, 3, 4, key='k', other=1); f(a=1, key='k')", "f(); f(1); f(1, a=1, key='k')"),
        ("static", "f(1); f(1, 2); f(a=1)", "f(); f(1, 2, 3)"),
        ("of_class", "f(1); f(a=1)", "f(); f(1, 2)"),
        ("barely", "f(); f(1); f(1, 2, c=3)", ""),
        ("keeping", "f(1); f(a=1)", "f(); f(1, 2)"),
        ("partial", "f(key='k'); f(2, key='k')", "f()"),
        ("only_names", "f(key=1)", "f(); f(1)"),
        ("no_self", "f(); f(1, 2)", "f(a=1)"),
        ("yields", "f()", "f(1)"),
        ("__call__", "f(1)", "f()"),
        ("size", "f([1])", "f(); f([1], [2])"),
        ("Inner", "f()", "f(1)"),
        ("shout", "f(1); f(a=1)", "f(); f(1, 2)"),
        ("get", "f(1); f(1, None)", "f(); f(1, 2, 3)"),
        ("fromkeys", "f([1]); f([1], 2)", "f()"),
        ("update", "f(); f({}); f(a=1); f([(1, 2)], b=2)", ""),  # a built-in that does not say what it takes
    ],
)
def test_calls_fit_or_do_not(name: str, fits: str, does_not: str) -> None:
    def checked(*args: Any, **kwargs: Any) -> None:
        METHODS[name].check(args, kwargs)

    for call in filter(None, fits.split("; ")):
        eval(call, {"f": checked})
    for call in filter(None, does_not.split("; ")):
        with pytest.raises(TypeError, match=rf"{name}\("):
            eval(call, {"f": checked})


def test_what_is_no_method_is_left_out() -> None:
    assert not METHODS.keys() & {"field", "seen", "__init__", "__reduce__", "__class__"}
    assert "__len__" in METHODS  # the class's own, which Ray lets be called too


def test_a_wrong_call_says_what_would_be_right() -> None:
    with pytest.raises(TypeError, match=r"static\(a, b=…\): missing a required argument: 'a'"):
        METHODS["static"].check((), {})


def test_constructors() -> None:
    constructor = describe(Everything).constructor
    constructor.check((1,), {"step": 2})
    with pytest.raises(TypeError, match=r"Everything\(start, \*, step=…\)"):
        constructor.check((), {})

    class Bare:
        pass

    describe(Bare).constructor.check((), {})
    with pytest.raises(TypeError, match="too many positional arguments"):
        describe(Bare).constructor.check((1,), {})

    class Inherits(dict):  # type: ignore[type-arg]
        pass

    describe(Inherits).constructor.check(([(1, 2)],), {"a": 1})


def test_streams_and_async() -> None:
    class Sync:
        def one(self) -> int:
            return 1

        def many(self) -> Iterator[int]:
            yield 1

    class Async(Sync):
        async def soon(self) -> int:
            return 1

        async def ever(self) -> AsyncIterator[int]:
            yield 1

        @kept
        async def wrapped(self) -> int:
            return 1

    assert not describe(Sync).is_async
    assert describe(Async).is_async
    streams = {name: method.generates for name, method in describe(Async).methods.items()}
    assert streams == {"one": False, "many": True, "soon": False, "ever": True, "wrapped": False}


def test_a_spec_travels_without_defaults_and_annotations() -> None:
    spec = describe(Everything)
    for back in (pickle.loads(pickle.dumps(spec)), loads(dumps(spec))):
        assert back == spec
        with pytest.raises(TypeError):
            back.methods["plain"].check((), {})
        assert str(back.methods["plain"].signature) == "(a, b=…, *rest, key, **more)"


def test_a_method_spec_is_data() -> None:
    assert METHODS["static"] == MethodSpec("static", METHODS["static"].signature, False)
