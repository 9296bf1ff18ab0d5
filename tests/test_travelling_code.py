"""Code that travels: which version of a class an actor has, and what is said where a package is missing."""

from __future__ import annotations

import functools
import os
import pickle
import subprocess
import sys
import textwrap
import types
from typing import TYPE_CHECKING, Any

import cloudpickle
import pytest
from clusters import failure, succeed
from hypothesis import given
from hypothesis import strategies as st

import actors
from actors.exceptions import ActorAlreadyExistsError
from actors.fingerprint import differ, fingerprint
from actors.packages import Lack, advice, lack_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("cluster")
PATIENCE = 60.0

CELL = """
import functools, enum, dataclasses
LIMIT = 3
def helper(x):
    return x + 1
class Colour(enum.Enum):
    RED = 1
class Base:
    def base(self):
        return 1
@dataclasses.dataclass
class Point:
    x: int = 0
class C(Base):
    '''A class.'''
    rate = 0.5
    names = ("a", "b")
    known = {"x", "y", "z"}
    colour = Colour.RED
    def __init__(self, n=3, *, k="v"):
        super().__init__()
        self.n = n
    def f(self, x):
        def inner(y):
            return helper(y) if y in {"p", "q", "r"} else [z * 2 for z in (x, y)]
        return inner
    async def g(self):
        return LIMIT
    def h(self):
        yield Point(1)
    @property
    def p(self):
        return 1
    @staticmethod
    def s():
        return 2
    @classmethod
    def c(cls):
        return cls
    @functools.cached_property
    def cached(self):
        return 5
    part = functools.partialmethod(f, 3)
"""


def define(text: str = CELL, **variables: object) -> Any:
    """Defines the class anew, as a notebook does: in `__main__`, which it stays in."""
    space: dict[str, Any] = {"__name__": "__main__", **variables}
    exec(compile(text, "<cell>", "exec", dont_inherit=True), space)
    return space["C"]


# -- fingerprints -----------------------------------------------------------------------------------------------


def test_equal_text_has_an_equal_fingerprint_here_and_in_any_other_process() -> None:
    mine = fingerprint(define())
    assert fingerprint(define()) == mine
    code = f"exec({CELL!r}); from actors.fingerprint import fingerprint; print(fingerprint(C))"
    for seed in ("1", "2"):  # of the order of sets
        env = {**os.environ, "PYTHONHASHSEED": seed}
        run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env)
        assert run.stdout.strip() == mine


def test_where_it_stands_and_what_is_said_about_it_does_not_count() -> None:
    assert fingerprint(define(f"\n\n# moved\n{CELL}")) == fingerprint(define())
    assert fingerprint(define(CELL.replace("LIMIT = 3", "LIMIT = 4"))) == fingerprint(define())


def test_a_class_that_has_travelled_has_the_fingerprint_it_had() -> None:
    cls = define(CELL.replace("    @functools.cached_property\n", ""))  # that of Python 3.11 holds a lock
    code = (
        "import sys, pickle; from actors.fingerprint import fingerprint as f; print(f(pickle.load(sys.stdin.buffer)))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, input=cloudpickle.dumps(cls), capture_output=True)
    assert run.stdout.decode().strip() == fingerprint(cls)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("z * 2", "z * 3"), ("return 2", "return 2.0"), ("n=3", "n=4"), ('k="v"', 'k="w"'), ("rate = 0.5", "rate = 1"),
        ('("a", "b")', '("a", "c")'), ('{"x", "y", "z"}', '{"x", "y"}'), ("x + 1", "x + 2"), ("return 5", "return 6"),
        ("return 1\n@data", "return 7\n@data"), ("Point(1)", "Point(2)"), ("async def g", "def g"), ("f, 3", "f, 4"),
        ("    @staticmethod\n", ""), ("def base", "def bass"), ("yield Point(1)", "return Point(1)"),
        ("(f, 3)", "(g, 3)"), ('{"p", "q", "r"}', '{"p", "q"}'), ("LIMIT\n    def", "LIMITS\n    def"),
        ("class C(Base)", "class C"), ("Colour.RED\n", "None\n"),
        ("    @staticmethod\n    def s():\n        return 2", "    s = len"),
    ],
)  # fmt: skip
def test_any_change_of_code_changes_it(old: str, new: str) -> None:
    assert old in CELL
    assert fingerprint(define(CELL.replace(old, new))) != fingerprint(define())


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(one=plain, other=plain)
def test_values_in_a_class_count_by_kind_and_value(one: Any, other: Any) -> None:
    def made(value: Any) -> str:
        return fingerprint(types.new_class("C", (), {}, lambda space: space.update(value=value, __module__="__main__")))

    assert made(one) == made(pickle.loads(pickle.dumps(one)))
    assert (made(one) == made(other)) == (repr(one) == repr(other))


def test_odd_classes_have_one_too() -> None:
    class Meta(type):
        pass

    class Odd(metaclass=Meta):
        __slots__ = ("a",)
        again: Any
        wrapped = functools.lru_cache(maxsize=1)(lambda self: 1)
        lock = object()

    Odd.again = Odd
    assert fingerprint(Odd) == fingerprint(Odd)
    assert fingerprint(dict) != fingerprint(list)
    assert fingerprint(subprocess.Popen)


def test_fingerprints_of_two_pythons_are_not_compared() -> None:
    assert differ("cpython-3.11:a", "cpython-3.11:b")
    assert not differ("cpython-3.11:a", "cpython-3.12:b")
    assert not differ("cpython-3.11:a", "cpython-3.11:a")
    assert not differ("", "cpython-3.11:a")


# -- classes that change ----------------------------------------------------------------------------------------

OLD = "class C:\n    def version(self):\n        return 1\n"
NEW = OLD.replace("return 1", "return 2")


def get(ref: Any) -> Any:
    return actors.get(ref, timeout=PATIENCE)


def test_a_class_that_was_changed_is_new_for_new_actors() -> None:
    old = actors.remote(define(OLD)).remote()
    new = actors.remote(define(NEW)).remote()
    assert [get(actor.version.remote()) for actor in (old, new)] == [1, 2]


def test_get_if_exists_returns_an_actor_of_the_same_class_defined_anew() -> None:
    first = actors.remote(define(OLD)).options(name="same", get_if_exists=True).remote()
    again = actors.remote(define(OLD)).options(name="same", get_if_exists=True).remote()
    assert again == first


@pytest.mark.parametrize("node", [0, 2])
def test_get_if_exists_does_not_return_an_actor_of_an_older_class(node: int) -> None:
    name, where = f"older-{node}", actors.nodes()[node].name
    first = actors.remote(define(OLD)).options(name=name, node=where).remote()
    changed = actors.remote(define(NEW)).options(name=name, get_if_exists=True)
    with pytest.raises(ActorAlreadyExistsError) as caught:
        changed.remote()
    text = str(caught.value)
    for words in (f"named {name!r}", "another version of class C", f"on node {where}", " ago", "actors.kill("):
        assert words in text
    assert actors.get_actor(name) == first, "who does not ask for a class gets what there is"
    actors.kill(first)
    assert get(changed.remote().version.remote()) == 2


def test_an_actor_may_ask_for_another_by_a_class_it_was_sent() -> None:
    @actors.remote
    class Asker:
        def ask(self, cls: Any) -> Any:
            return cls.options(name="shared", get_if_exists=True).remote()

    cls = actors.remote(define(OLD))
    mine = cls.options(name="shared").remote()
    asker = Asker.remote()
    assert get(asker.ask.remote(cls)) == mine
    assert "another version of class C" in str(failure(asker.ask.remote(actors.remote(define(NEW)))))


# -- packages that are not there --------------------------------------------------------------------------------


def install(place: Path, name: str, version: str, text: str) -> None:
    """Makes a package look installed in a folder."""
    (place / name).mkdir(parents=True)
    (place / name / "__init__.py").write_text(textwrap.dedent(text))
    info = place / f"dist_of_{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dist-of-{name}\nVersion: {version}\n")
    (info / "top_level.txt").write_text(f"{name}\n")
    (info / "INSTALLER").write_text("test\n")


PROGRAM = """
    import sys, actors
    sys.path.insert(0, "INSTALLED")
    import actors.exceptions

    @actors.remote
    class Echo:
        def echo(self, value):
            return value
        def make(self):
            import {package}
            return {package}.Thing()

    def tell(ref):
        try:
            print("fine", actors.get(ref, timeout=30))
        except BaseException as error:
            print(type(error).__name__, "|", str(error).partition("\\n\\nIt was")[0].replace("\\n", " "))

    import {package}
    with actors.init({init}):
        {body}
    """


def run(tmp_path: Path, package: str, body: str, init: str = "") -> list[str]:
    text = textwrap.dedent(PROGRAM).format(package=package, body=body, init=init)
    return succeed(text.replace("INSTALLED", str(tmp_path / "site-packages")))


def test_a_worker_that_lacks_a_package_says_which_and_what_mends_it(tmp_path: Path) -> None:
    text = """
        class Thing:
            pass
        class Actor:
            def f(self):
                return 1
        """
    install(tmp_path / "site-packages", "onlyhere", "1.2", text)
    body = (
        "echo = Echo.remote(); tell(echo.echo.remote(onlyhere.Thing())); tell(echo.make.remote()); "
        "tell(actors.remote(onlyhere.Actor).remote().f.remote())"
    )
    argument, method, construction = run(tmp_path, "onlyhere", body)
    for line in (argument, method, construction):
        assert "No module named 'onlyhere'" in line
        assert "This program has dist-of-onlyhere 1.2, and node " in line
        assert "pip install 'dist-of-onlyhere==1.2'" in line
        assert "runtime_env={'pip': ['dist-of-onlyhere==1.2']}" in line
    assert argument.startswith("ModuleNotFoundError |")
    assert construction.startswith("ActorDiedError |")


def test_another_version_is_told_with_both(tmp_path: Path) -> None:
    install(tmp_path / "site-packages", "both", "2.0", "class Thing:\n    pass\n")
    install(tmp_path / "there", "both", "1.0", "")
    body = "echo = Echo.remote(); tell(echo.echo.remote(both.Thing()))"
    init = f"runtime_env={{'env_vars': {{'PYTHONPATH': {str(tmp_path / 'there')!r}}}}}"
    (line,) = run(tmp_path, "both", body, init)
    assert "This program has dist-of-both 2.0, and node " in line
    assert "has 1.0, without both.Thing." in line
    assert "pip install 'dist-of-both==2.0'" in line


def test_a_result_that_cannot_be_read_here_says_what_to_install(tmp_path: Path) -> None:
    install(tmp_path / "there" / "site-packages", "onlythere", "3.1", "class Thing:\n    pass\n")
    install(tmp_path / "site-packages", "other", "1", "")
    body = (
        "Make = actors.remote(type('Make', (), {'make': lambda self: __import__('onlythere').Thing()})); "
        "tell(Make.remote().make.remote())"
    )
    init = f"runtime_env={{'env_vars': {{'PYTHONPATH': {str(tmp_path / 'there' / 'site-packages')!r}}}}}"
    (line,) = run(tmp_path, "other", body, init)
    assert line.startswith("ModuleNotFoundError | No module named 'onlythere'")
    assert "pip install onlythere" in line


def test_a_file_of_the_programs_own_is_to_be_sent_along() -> None:
    code = """
        import actors

        @actors.remote
        class A:
            def f(self):
                import helper_beside
                return helper_beside.VALUE

        with actors.init():
            try:
                actors.get(A.remote().f.remote())
            except ModuleNotFoundError as error:
                print([line for line in str(error).splitlines() if "py_modules" in line][0])
            import helper_beside
            print(actors.get(A.options(runtime_env={"py_modules": [helper_beside]}).remote().f.remote()))
        """
    advised, value = succeed(code, beside={"helper_beside.py": "VALUE = 3"})
    assert "'helper_beside' is code of this program's, in " in advised
    assert advised.endswith("helper_beside.py']}")
    assert value == "3"


def test_errors_about_something_else_are_left_alone() -> None:
    assert lack_of(ValueError("x")) is None
    assert lack_of(AttributeError("no attribute 'x'")) is None
    assert lack_of(ModuleNotFoundError("x", name="asyncio.nothing")) is None
    assert lack_of(ModuleNotFoundError("x")) is None
    assert lack_of(ImportError("cannot import name 'x' from 'numpy' (a file)")) == Lack(
        "numpy", "x", __import__("numpy").__version__
    )
    assert advice(Lack("no_such_module", None, None), "n") == ""
    assert advice(Lack("numpy", "x", __import__("numpy").__version__), "n") == ""
