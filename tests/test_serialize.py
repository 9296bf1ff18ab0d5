"""Pickling: values as they are now, arrays without copies, code that travels, and errors that name the culprit."""

from __future__ import annotations

import dataclasses
import functools
import gc
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from actors import serialize
from actors.exceptions import SerializationError
from actors.ids import new_id
from actors.messages import Payload, Terms
from actors.serialize import dumps, dumps_arguments, loads

if TYPE_CHECKING:
    from pathlib import Path

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=10,
)


@given(plain)
def test_plain_values(value: Any) -> None:
    back = loads(dumps(value))
    assert back == value
    assert type(back) is type(value)


@given(st.lists(plain, max_size=3).map(tuple), st.dictionaries(st.text(), plain, max_size=3))
def test_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    assert loads(dumps_arguments(args, kwargs)) == (args, kwargs)


# -- arrays -----------------------------------------------------------------------------------------------------


numbers = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(),
    hnp.unsigned_integer_dtypes(),
    hnp.floating_dtypes(),
    hnp.complex_number_dtypes(),
    hnp.unicode_string_dtypes(),
    hnp.byte_string_dtypes(),
    hnp.datetime64_dtypes(),
    hnp.timedelta64_dtypes(),
)


@example(np.array((False,), dtype=[(":", "?")]), "as it is")
@example(np.array(["NaT"] * 3, dtype="datetime64[Y]"), "every other")
@given(
    hnp.arrays(
        st.one_of(numbers, hnp.array_dtypes(numbers, max_size=3)),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0),
    ),
    st.sampled_from(["as it is", "transposed", "every other", "backwards", "in fortran order"]),
)
def test_numpy_arrays_arrive_equal_and_read_only(array: Any, layout: str) -> None:
    if layout == "transposed":
        array = array.T
    elif layout == "in fortran order":
        array = np.asfortranarray(array)
    elif array.ndim > 0 and layout != "as it is":
        array = array[::2] if layout == "every other" else array[::-1]
    back = loads(dumps(array))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()
    assert not back.flags.writeable


def test_an_array_of_objects_travels_too() -> None:
    array = np.array([{"a": 1}, None, [2]], dtype=object)
    assert loads(dumps(array)).tolist() == array.tolist()


@pytest.mark.parametrize("array", [np.zeros(100_000), mx.zeros(100_000), np.zeros((100, 1000))[:, ::2]])
def test_arrays_stay_out_of_the_pickle(array: Any) -> None:
    payload = dumps({"deep": [array]})
    assert len(payload.pickle) < 1000
    assert sum(len(buffer) for buffer in payload.buffers) == array.nbytes


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16, mx.int8, mx.bool_, mx.complex64])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_mlx_arrays(dtype: Any, shape: tuple[int, ...]) -> None:
    array = mx.ones(shape, dtype=dtype)
    back = loads(dumps(array))
    assert isinstance(back, mx.array)
    assert back.dtype == dtype
    assert back.shape == shape
    assert mx.array_equal(back, array)


def _view_of(array: Any) -> Any:
    view = array.view()
    view.flags.writeable = False
    return view


@pytest.mark.parametrize("view", [lambda a: a, _view_of, lambda a: _view_of(_view_of(a)[2:]), lambda a: _view_of(a).T])
def test_later_changes_are_not_seen(view: Any) -> None:
    array = np.arange(10)
    given_away = view(array)
    expected = given_away.tolist()
    payload = dumps(given_away)
    array[:] = -1
    assert loads(payload).tolist() == expected


def test_later_changes_of_other_memory_are_not_seen() -> None:
    memory = bytearray(16)
    array = np.frombuffer(memoryview(memory).toreadonly(), dtype=np.uint8)
    payload = dumps([array, memory])
    memory[:] = b"x" * 16
    back, block = loads(payload)
    assert not back.any()
    assert block == bytes(16)
    changed = mx.zeros(3)
    payload = dumps(changed)
    changed[0] = 5
    assert loads(payload)[0].item() == 0


def test_what_arrived_goes_on_without_a_copy() -> None:
    arrived = loads(dumps(np.arange(1000)))
    first, second = np.asarray(arrived), np.asarray(loads(dumps(arrived)))
    assert np.shares_memory(first, second)


def test_a_payload_in_a_payload_is_not_copied() -> None:
    block = bytearray(b"x" * 1000)  # as it is put together from chunks
    inner = Payload(b"pickle", (memoryview(block).toreadonly(), b"y" * 1000))
    outer = dumps({"inner": inner})
    assert len(outer.pickle) < 1000
    back = loads(outer)["inner"]
    assert isinstance(back, Payload)
    assert [bytes(buffer) for buffer in back.buffers] == [b"x" * 1000, b"y" * 1000]
    assert np.shares_memory(np.frombuffer(back.buffers[0], np.uint8), np.frombuffer(block, np.uint8))


def test_what_is_pickled_already_is_not_looked_through_again(monkeypatch: pytest.MonkeyPatch) -> None:
    state = dumps({"entries": [1, 2]})
    with_buffers = dumps(np.arange(1000))
    monkeypatch.setattr(serialize, "_Pickler", None)
    sent = dumps_arguments(("actor-1", 7, state), {})
    assert len(sent.pickle) < len(state.pickle) + 100
    (actor, number, back), _ = loads(sent)
    assert (actor, number, back, loads(back)) == ("actor-1", 7, state, {"entries": [1, 2]})
    with pytest.raises(SerializationError):
        dumps_arguments(("actor-1", 7, with_buffers), {})


def test_pickling_keeps_nothing_alive() -> None:
    array = np.arange(10)
    before = sys.getrefcount(array)
    payload = dumps(array)
    gc.collect()
    assert sys.getrefcount(array) == before
    del payload


# -- what cannot be pickled -------------------------------------------------------------------------------------


class Holder:
    def __init__(self, part: Any) -> None:
        self.fine = 1
        self.part = part


class Slotted:
    __slots__ = ("part", "unset")

    def __init__(self, part: Any) -> None:
        self.part = part


@dataclasses.dataclass
class Data:
    part: Any


class Computed:
    """Has a ``__dict__`` that cannot be looked at."""

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("not now")

    def __reduce__(self) -> Any:
        raise TypeError("I stay here")


def _closure(part: Any) -> Any:
    return lambda: part


def _half_closure(part: Any) -> Any:
    def function() -> Any:
        return part, later

    if part is None:
        later = 1
    return function


def _method_default(part: Any) -> type:
    class Local:
        held = part

    return Local


@pytest.mark.parametrize(
    ("wrap", "path"),
    [
        (lambda part: [1, [2, part]], r"\[1\]\[1\]"),
        (lambda part: {"a": 1, "b": (part,)}, r"\['b'\]\[0\]"),
        (Holder, r"\.part"),
        (Slotted, r"\.part"),
        (Data, r"\.part"),
        (lambda part: [Holder(Data(part))], r"\[0\]\.part\.part"),
        (_closure, r"\.<closure>\.part"),
        (_half_closure, r"\.<closure>\.part"),
        (_method_default, r"\.held"),
    ],
)
def test_the_culprit_is_named(wrap: Any, path: str) -> None:
    with pytest.raises(SerializationError, match=rf"{path} is a lock, which cannot be pickled: .*lock.*Leave it out"):
        dumps(wrap(threading.Lock()))


def test_a_culprit_alone_is_named_by_its_kind() -> None:
    with pytest.raises(SerializationError, match=r"^a lock cannot be pickled"):
        dumps(threading.Lock())
    with pytest.raises(SerializationError, match=r"^a generator cannot be pickled"):
        dumps(n for n in range(3))
    with pytest.raises(SerializationError, match=r"^a Computed cannot be pickled: I stay here"):
        dumps(Computed())


def test_a_global_of_a_function_is_named() -> None:
    space: dict[str, Any] = {"lock": threading.Lock(), "__name__": "__main__"}
    exec("def function():\n    return lock", space)
    with pytest.raises(SerializationError, match=r"\.<global>\.lock is a lock"):
        dumps(space["function"])


def test_arguments_are_looked_into() -> None:
    with pytest.raises(SerializationError, match=r"^argument 2 is a lock"):
        dumps_arguments((1, threading.Lock()), {})
    with pytest.raises(SerializationError, match=r"^argument 'key' is a lock"):
        dumps_arguments((1,), {"key": threading.Lock()})
    with pytest.raises(SerializationError, match=r"^argument 1\['k'\]\[0\] is a lock"):
        dumps_arguments((Payload(b""), {"k": [threading.Lock()]}), {})  # a task's code is none of its arguments


@pytest.mark.parametrize("kind", [list, dict])
def test_what_is_nested_too_deeply_says_so(kind: type) -> None:
    value: Any = kind()
    for _ in range(20_000):
        value = [value] if kind is list else {"in": value}
    with pytest.raises(SerializationError, match=r"nested too deeply .*recursion limit is .*flatter"):
        dumps(value)
    while value:  # taken apart from outside: not even dropping it recurses
        value = value[0] if kind is list else value["in"]


def test_an_interrupt_passes() -> None:
    class Interrupting:
        def __reduce__(self) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dumps(Interrupting())


# -- code -------------------------------------------------------------------------------------------------------

HELPERS = """
SCALE = 3

def scaled(x):
    return x * SCALE
"""

MODULE = """
import helpers
from pack.inner import Base

class Tool(Base):
    def use(self, x):
        return helpers.scaled(x) + self.offset(), type(self).__module__

def lazily(x):
    from math import sqrt
    return sqrt(x)

class ToolError(Exception):
    def __init__(self, code, *, hint):
        super().__init__(code)
        self.hint = hint
"""

INNER = """
class Base:
    def offset(self):
        return 1
"""

SEND = """
import sys
import tools
from actors.serialize import dumps
payload = dumps((tools.Tool(), tools.lazily, tools.ToolError))
sys.stdout.buffer.write(payload.pickle)
assert not payload.buffers
"""

TAKE = """
import sys
from actors.ids import new_id
from actors.messages import Payload, Terms
from actors.serialize import loads
tool, lazily, error = loads(Payload(sys.stdin.buffer.read()))
assert "tools" not in sys.modules
assert tool.use(5) == (16, "tools"), tool.use(5)
assert lazily(9) == 3
assert error(1, hint="h").hint == "h"
print("used")
"""


def _python(program: str, folder: Path, given: bytes = b"") -> bytes:
    done = subprocess.run(
        [sys.executable, "-c", program], input=given, capture_output=True, timeout=60, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_local_modules_travel_by_value(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "pack").mkdir(parents=True)
    there.mkdir()
    (here / "helpers.py").write_text(HELPERS)
    (here / "tools.py").write_text(MODULE)
    (here / "pack" / "__init__.py").write_text("")
    (here / "pack" / "inner.py").write_text(INNER)
    assert _python(TAKE, there, _python(SEND, here)) == b"used\n"


def test_installed_code_travels_by_reference() -> None:
    for value in (functools.partial, Payload, np.mean, SerializationError, textwrap.dedent, threading.Thread):
        assert loads(dumps(value)) is value
        assert len(dumps(value).pickle) < 200


def test_how_this_packages_own_code_travels_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str | None] = []
    monkeypatch.setattr(serialize, "_own", set())
    monkeypatch.setattr(serialize, "_travel_by_value", looked.append)
    for _ in range(3):
        assert loads(dumps([Terms(), new_id])) == [Terms(), new_id]
    assert sorted(looked, key=str) == ["actors.ids", "actors.messages"]
    pretends = type("Terms", (), {"__module__": "actors.messages"})  # a program's, which has another's name
    made = loads(dumps(pretends()))
    assert type(made) is pretends
    assert serialize._own == {Terms, new_id}


def test_code_that_says_of_no_module_that_it_is_its_own_travels_by_value() -> None:
    namespace: dict[str, Any] = {}
    exec("def double(x):\n    return 2 * x", namespace)
    assert namespace["double"].__module__ is None
    kind = type("Kind", (), {"__module__": None, "number": 3})
    assert loads(dumps(namespace["double"]))(2) == 4
    assert loads(dumps(kind)).number == 3


@pytest.mark.parametrize("function", [mx.add, mx.fast.rope, mx.random.normal, mx.array.sum])
def test_mlx_functions_travel_by_reference(function: Any) -> None:
    assert loads(dumps(function)) is function
    assert loads(dumps(lambda: function))() is function


def test_a_class_comes_back_as_itself() -> None:
    class Local:
        pass

    assert loads(dumps(Local)) is Local
    assert isinstance(loads(dumps(Holder(1))), Holder)


def test_what_an_own_reduce_raises_is_told() -> None:
    class Shy:
        def __reduce__(self) -> Any:
            raise ValueError("I stay here.")

    with pytest.raises(SerializationError, match=r"a Shy cannot be pickled: I stay here\. Leave it out"):
        dumps(Shy())
