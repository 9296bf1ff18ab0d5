"""An exception's way home: of the user's own class, with the remote traceback, whatever the class is like."""

from __future__ import annotations

import builtins
import copy
import pickle
import threading
from dataclasses import dataclass
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.exceptions import ActorDiedError, TaskError, Verdict
from actors.failure import Place, exited, pack, unpack
from actors.serialize import dumps

PLACE = Place("n1", "Worker#1", "work", 42)


def sent(error: BaseException) -> TaskError:
    """Raises an error as a method would, and sends it home."""
    try:
        raise error
    except BaseException as raised:
        return unpack(pack(raised, PLACE))


class OddInitError(Exception):
    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"code {code}")
        self.code = code
        self.hint = hint


class OddNewError(Exception):
    def __new__(cls, *, code: int) -> Self:
        error = super().__new__(cls, "made by __new__")
        error.code = code  # type: ignore[attr-defined]
        return error

    def __init__(self, *, code: int) -> None:
        super().__init__("made by __init__")


@dataclass(frozen=True)
class FrozenError(Exception):
    code: int


class SlottedError(Exception):
    __slots__ = ("code", "never_set")

    def __init__(self, code: int) -> None:
        self.code = code


class PropertyError(Exception):
    """Has names of ours for itself, one of them read-only."""

    @property
    def node(self) -> str:
        return "mine"


class StubbornReduceError(Exception):
    def __reduce_ex__(self, protocol: Any) -> Any:
        raise RuntimeError("not me")


class FinalError(Exception):
    def __init_subclass__(cls) -> None:
        raise RuntimeError("no subclasses")


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class OwnOSError(OSError):
    def __init__(self, path: str) -> None:
        super().__init__(2, "no such thing", path)
        self.path = path


class OwnKeyError(KeyError):
    pass


class OwnStop(StopIteration):
    pass


class HoldingError(Exception):
    def __init__(self, text: str, lock: Any) -> None:
        super().__init__(text, lock)
        self.lock = lock
        self.kept = [1, 2]


def test_it_is_of_the_users_class_and_says_where_it_was_raised() -> None:
    error = sent(ValueError("bad input"))
    assert isinstance(error, ValueError)
    assert type(error).__name__ == "ValueError"
    assert error.args == ("bad input",)
    assert (error.node, error.actor, error.method, error.verdict) == ("n1", "Worker#1", "work", Verdict.RAISED)
    assert type(error.cause) is ValueError
    text = str(error)
    assert text.startswith("ValueError: bad input\n")
    assert "Worker#1.work on node n1 (pid 42)" in text
    assert "Traceback (most recent call last)" in text
    assert "in sent" in text
    assert error.remote_traceback in text + "\n"


ODD = [
    OddInitError(3, hint="try 4"),
    OddNewError(code=3),
    FrozenError(3),
    SlottedError(3),
    PropertyError("x"),
    OwnOSError("/nowhere"),
    OwnKeyError("key"),
    OwnStop(7),
    StubbornReduceError("x"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    FileNotFoundError(2, "No such file or directory", "here", None, "there"),
    ImportError("no module", name="m", path="/m.py"),
    SyntaxError("bad", ("f.py", 1, 2, "x =", 1, 3)),
    StopAsyncIteration(),
    NameError("name 'x' is not defined", name="x"),
]


@pytest.mark.parametrize("original", ODD, ids=lambda error: type(error).__name__)
def test_odd_classes_come_home_as_themselves(original: Exception) -> None:
    error = sent(original)
    assert isinstance(error, type(original))
    assert isinstance(error, TaskError)
    assert type(error.cause) is type(original)
    assert str(error.cause) == str(original)
    for both in (error, error.cause):
        assert both.args == original.args
    assert type(original).__name__ in str(error)


@pytest.mark.parametrize("original", ODD, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("again", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
def test_it_can_be_pickled_again(original: Exception, again: Any) -> None:
    error = sent(original)
    error.add_note("seen by the driver")
    second = again(error)
    assert type(second) is type(error)
    assert str(second) == str(error)
    assert second.args == error.args
    assert second.__notes__ == ["seen by the driver"]
    assert second.verdict is Verdict.RAISED


def test_what_builtin_classes_keep_apart_comes_along() -> None:
    missing = sent(FileNotFoundError(2, "No such file", "here", None, "there"))
    assert isinstance(missing, FileNotFoundError)
    assert (missing.errno, missing.filename, missing.filename2) == (2, "here", "there")
    own = sent(OwnOSError("/nowhere"))
    assert isinstance(own, OwnOSError)
    assert (own.path, own.filename, own.strerror) == ("/nowhere", "/nowhere", "no such thing")
    broken = sent(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"))
    assert isinstance(broken, UnicodeDecodeError)
    assert (broken.encoding, broken.object, broken.start, broken.end) == ("utf-8", b"\xff", 0, 1)
    stop = sent(OwnStop(7))
    assert isinstance(stop, OwnStop)
    assert stop.value == 7
    slotted = sent(SlottedError(3))
    assert isinstance(slotted, SlottedError)
    assert slotted.code == 3
    lost = sent(ImportError("no module", name="m", path="/m.py"))
    assert isinstance(lost, ImportError)
    assert (lost.name, lost.path) == ("m", "/m.py")


def test_own_attributes_and_notes_come_along() -> None:
    original = OddInitError(3, hint="try 4")
    original.add_note("while cooking")
    error = sent(original)
    assert isinstance(error, OddInitError)
    assert (error.code, error.hint, error.__notes__) == (3, "try 4", ["while cooking"])
    assert "while cooking" in str(error)


def test_a_cause_of_an_odd_class_comes_along() -> None:
    original = ValueError("outer")
    original.__cause__ = OddInitError(3, hint="try 4")
    original.__cause__.__cause__ = KeyError("innermost")
    error = sent(original)
    assert isinstance(error.__cause__, OddInitError)
    assert error.__cause__.hint == "try 4"
    assert isinstance(error.__cause__.__cause__, KeyError)
    assert "direct cause" in str(error)


def test_causes_in_a_circle_and_long_chains_end() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert isinstance(sent(first), ValueError)
    chain = ValueError("bottom")
    for number in range(200):
        above = ValueError(number)
        above.__cause__ = chain
        chain = above
    assert isinstance(sent(chain), ValueError)


def test_a_group_keeps_its_parts() -> None:
    original = ExceptionGroup("all", [OddInitError(3, hint="try 4"), ExceptionGroup("in", [KeyError("x")])])
    error = sent(original)
    assert isinstance(error, ExceptionGroup)
    assert error.message == "all"
    odd, inner = error.exceptions
    assert isinstance(odd, OddInitError)
    assert odd.hint == "try 4"
    assert isinstance(inner, ExceptionGroup)
    assert [type(part) for part in inner.exceptions] == [KeyError]
    caught: list[BaseException] = []
    try:
        raise error
    except* KeyError as group:
        caught += group.exceptions
    except* OddInitError as group:
        caught += group.exceptions
    assert len(caught) == 2


def test_attributes_that_do_not_pickle_are_left_out_and_arguments_shown() -> None:
    lock = threading.Lock()
    error = sent(HoldingError("held", lock))
    assert isinstance(error, HoldingError)
    assert error.args == ("held", repr(lock))
    assert error.kept == [1, 2]
    assert not hasattr(error, "lock")


def test_the_object_that_lacks_an_attribute_stays_where_it_is() -> None:
    class Large:
        def __reduce__(self) -> Any:
            raise AssertionError("it was pickled")

    try:
        Large().missing  # type: ignore[attr-defined]  # noqa: B018
    except AttributeError as raised:
        error = sent(raised)
    assert isinstance(error, AttributeError)
    assert error.name == "missing"


def test_a_class_that_cannot_be_subclassed_is_the_cause() -> None:
    error = sent(FinalError("alone"))
    assert isinstance(error, TaskError)
    assert not isinstance(error, FinalError)
    assert type(error.cause) is FinalError
    assert "FinalError: alone" in str(error)


def test_an_error_that_cannot_say_anything_still_comes() -> None:
    error = sent(MuteError("x"))
    assert isinstance(error, MuteError)
    assert "MuteError" in str(error)


@pytest.mark.parametrize("original", [KeyboardInterrupt(), GeneratorExit(), BaseExceptionGroup("g", [SystemExit()])])
def test_another_processs_interrupt_is_none_of_ours(original: BaseException) -> None:
    error = sent(original)
    assert isinstance(error, TaskError)
    assert not isinstance(error, type(original))
    assert type(error.cause) is type(original)
    assert type(original).__name__ in str(error)
    assert type(pickle.loads(pickle.dumps(error)).cause) is type(original)


def test_an_error_through_two_actors_is_still_the_users() -> None:
    inner = sent(OddInitError(3, hint="try 4"))
    outer = unpack(pack(inner, Place("n2", "Front#1", "ask", 43)))
    assert isinstance(outer, OddInitError)
    assert outer.hint == "try 4"
    assert outer.actor == "Front#1"
    assert type(outer.cause) is OddInitError
    text = str(outer)
    assert "Worker#1.work on node n1" in text
    assert "Front#1.ask on node n2" in text
    assert text.count("Traceback (most recent call last)") == 1  # the second was never raised


def test_a_death_met_in_a_method_keeps_its_class() -> None:
    error = sent(ActorDiedError("gone", node="n3", actor="Other#1"))
    assert isinstance(error, ActorDiedError)
    assert isinstance(error.cause, ActorDiedError)
    assert error.cause.node == "n3"
    assert error.node == "n1"


def test_a_class_that_is_not_here_leaves_its_text() -> None:
    source = "class Gone(Exception):\n    def __reduce__(self): return (1/0,)"
    space: dict[str, Any] = {"__name__": "nowhere"}
    exec(source, space)
    kind = space["Gone"]
    kind.held = threading.Lock()  # so that the class cannot travel by value
    error = sent(kind("told"))
    assert isinstance(error, TaskError)
    assert error.cause is None
    assert "nowhere.Gone: told" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_what_cannot_be_read_is_an_error_of_its_own() -> None:
    error = unpack(dumps("no failure"))
    assert isinstance(error, TaskError)
    assert "cannot be read here" in str(error)


def test_an_exit_says_so() -> None:
    error = exited("raised SystemExit(0)", PLACE)
    assert type(error) is ActorDiedError
    assert (error.node, error.actor, error.method) == (PLACE.node, PLACE.actor, PLACE.method)
    assert "SystemExit(0)" in str(error)


BUILTIN = [
    kind
    for kind in vars(builtins).values()
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, BaseExceptionGroup)
]


@given(st.sampled_from(BUILTIN), st.lists(st.one_of(st.none(), st.integers(), st.text()), max_size=6))
def test_every_builtin_class_with_any_arguments(kind: type[Exception], args: list[Any]) -> None:
    try:
        original = kind(*args)
    except Exception:
        return  # not a way to make one
    error = sent(original)
    assert isinstance(error, type(original))
    assert repr(error.args) == repr(original.args)
    assert str(error.cause) == str(original)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
