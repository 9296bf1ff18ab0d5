"""Types and completion: what mypy accepts and refuses, and what an interactive shell shows."""

from __future__ import annotations

import inspect
import os
import pickle
import re
import shutil
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import actors

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PATIENCE = 60.0  # seconds for anything that must come, on a machine that is busy with other things

# Read by mypy for nothing: no type below depends on them.
HEAVY = "[mypy-numpy.*,grpc.*,google.*,mlx.*,mlx_lm.*,cryptography.*,psutil.*,rich.*,zeroconf.*,actors._wire.*,click.*]"

# -- mypy -------------------------------------------------------------------------------------------------------------

CAST = """
    from __future__ import annotations

    import abc
    from collections.abc import AsyncIterator, Iterator
    from dataclasses import dataclass
    from typing import Generic, TypeVar

    import actors

    T = TypeVar("T")

    class Counter:
        kind = "counter"

        def __init__(self, start: int = 0) -> None:
            self.count = start

        def add(self, amount: int = 1, *, note: str = "") -> int:
            return self.count + amount

        async def wait(self, seconds: float) -> str:
            return ""

        def stream(self, n: int) -> Iterator[int]:
            yield n

        async def follow(self, n: int) -> AsyncIterator[str]:
            yield ""

        @actors.method(num_returns=2)
        def two(self) -> tuple[int, str]:
            return self.add(2), ""

        @actors.method(concurrency_group="io")
        def marked(self, x: int) -> bytes:
            return self.marked(x)

        @actors.method
        async def bare(self, x: int) -> bytes:
            return b""

        def echo(self, x: T) -> T:
            return x

        @staticmethod
        def static(x: int) -> int:
            return x

        @classmethod
        def of_class(cls, x: int) -> int:
            return cls(x).count

    def double(x: int) -> int:
        return 2 * x

    def count(n: int) -> Iterator[str]:
        yield str(n)
"""

DECORATED = (
    CAST.replace("    class Counter", "    @actors.remote\n    class Counter")
    .replace("    def double", "    @actors.remote\n    def double")
    .replace("    def count(", "    @actors.remote(num_cpus=1)\n    def count(")
    + """
    @actors.remote(num_cpus=1)
    @dataclass
    class Point:
        x: int
        y: float = 0.0

        def get(self) -> Point:
            return self

    @actors.remote
    class Shape(abc.ABC):
        @abc.abstractmethod
        def area(self) -> float: ...

    @actors.remote
    class Box(Generic[T]):
        def __init__(self, x: T) -> None:
            self.x = x

        def get(self) -> T:
            return self.x

    class Sub(Counter.cls):
        def more(self) -> int:
            return self.add(1)

    def use(counter: actors.ActorHandle[Counter]) -> int:
        return actors.get(counter.add.remote(1))

    counter = Counter.remote(1)
    group = Counter.group(3, 1)
"""
)

CALLED = (
    CAST
    + """
    Remote = actors.remote(Counter)
    double_ = actors.remote(double)
    count_ = actors.remote(count)
    counter = Remote.remote(1)
"""
)

MARKED = """
    import actors

    class Counter(actors.Marked):
        def __init__(self, start: int = 0) -> None:
            self.count = start

        @actors.method
        def add(self, amount: int = 1) -> int:
            return self.count

        @actors.method(timeout=3)
        async def wait(self) -> str:
            return str(self.add(2))

    counter = actors.remote(Counter).remote(1)
"""


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs mypy, strict; returns its messages by line of the program's end. Its cache is shared by the module."""
    pytest.importorskip("mypy")
    from mypy import api

    folder = tmp_path_factory.mktemp("mypy")

    def run(start: str, lines: list[str], plugin: bool) -> list[str]:
        config = folder / f"plugin-{plugin}.ini"
        settings = ["[mypy]", "strict = true", *(["plugins = actors.mypy"] if plugin else [])]
        config.write_text("\n".join([*settings, HEAVY, "follow_imports = skip\n"]))
        program = folder / "program.py"
        text = textwrap.dedent(start)
        program.write_text(text + "\n".join(lines) + "\n")
        patch = pytest.MonkeyPatch()
        patch.setenv("MYPYPATH", str(ROOT))
        patch.chdir(folder)
        cache = folder / f"cache-{plugin}"
        flags = ["--config-file", str(config), "--cache-dir", str(cache), "--follow-imports", "silent"]
        try:
            out, complaints, _ = api.run([*flags, "--no-error-summary", "program.py"])
        finally:
            patch.undo()
        assert not complaints
        before = text.count("\n")
        told = [""] * len(lines)
        for message in out.splitlines():
            found = re.fullmatch(r"program\.py:(\d+): (\w+): (.*)", message)
            assert found, message
            number = int(found[1]) - before - 1
            assert number >= 0, message  # none in the start
            if not told[number]:
                told[number] = f"{found[2]}: {found[3]}".replace("actors.refs.", "").replace("actors.handle.", "")
        return told

    return run


def reveals(checked: Any, start: str, plugin: bool, expected: dict[str, str]) -> None:
    told = checked(start, [f"reveal_type({expression})" for expression in expected], plugin)
    assert dict(zip(expected, told, strict=True)) == {
        expression: f'note: Revealed type is "{kind}"' for expression, kind in expected.items()
    }


def refuses(checked: Any, start: str, plugin: bool, expected: dict[str, str]) -> None:
    told = checked(start, list(expected), plugin)
    for (line, words), message in zip(expected.items(), told, strict=True):
        assert message.startswith("error:"), f"{line} was accepted"
        assert words in message, line


def test_with_the_plugin_a_decorated_class_is_an_actor_class(checked: Any) -> None:
    ref, stream = "ObjectRef[{}]".format, "actors.stream.ObjectRefGenerator[{}]".format
    expected = {
        "Counter.remote": "def (start: int | ObjectRef[int] =) -> ActorHandle[program.Counter]",
        "counter": "ActorHandle[program.Counter]",
        "counter.add.remote": "def (amount: int | ObjectRef[int] =, *, note: str | ObjectRef[str] =) -> ObjectRef[int]",
        "counter.add.remote(counter.add.remote(), note=actors.put(''))": ref("int"),
        "counter.add.map([1, actors.put(2)])": f"list[{ref('int')}]",
        "counter.add.options(timeout=1).remote(2)": ref("int"),
        "counter.add.options(num_returns=2).remote(2)": "Any",
        "counter.wait.remote(1)": ref("str"),
        "counter.stream.remote(1)": stream("int"),
        "counter.follow.remote(1)": stream("str"),
        "counter.two.remote()": "Any",
        "counter.marked.remote(actors.put(1))": ref("bytes"),
        "counter.bare.remote(1)": ref("bytes"),
        "counter.echo.remote('x')": ref("str"),
        "counter.static.remote(1)": ref("int"),
        "counter.of_class.remote(1)": ref("int"),
        "Counter.options(name='x').remote(actors.put(2))": "ActorHandle[program.Counter]",
        "Counter.cls(3).add(1)": "int",
        "group": "actors.group.ActorGroup[program.Counter]",
        "group.add.remote(1)": f"list[{ref('int')}]",
        "group.add.map([1, 2, 3])": f"list[{ref('int')}]",
        "group[0].add.remote(1)": ref("int"),
        "Counter.options(name='x').group(2).wait.remote(1.0)": f"list[{ref('str')}]",
        "Point.remote(1, y=2.0).get.remote()": ref("program.Point"),
        "Box.remote(1).get.remote()": ref("int"),
        "double.remote(double.remote(1))": ref("int"),
        "double.map([1])": f"list[{ref('int')}]",
        "double.options(num_cpus=1).remote(2)": ref("int"),
        "count.remote(1)": stream("str"),
        "actors.remote(Sub).remote(1).more.remote()": ref("int"),
        "actors.get(counter.add.remote(1))": "int",
        "actors.get([counter.add.remote(1)])": "list[int]",
        "use(counter)": "int",
    }
    reveals(checked, DECORATED, True, expected)


def test_with_the_plugin_a_wrong_call_is_an_error_at_its_line(checked: Any) -> None:
    expected = {
        "Counter.remote('x')": 'incompatible type "str"; expected "int | ObjectRef[int]"',
        "Counter.remote(1, 2)": "Too many arguments",
        "Counter.options(num_cpus=1).remote('x')": "No overload variant",
        "Counter.group(2, 'x')": 'incompatible type "str"',
        "Counter(1)": "Counter is an actor class: use Counter.remote(...)",
        "class Wrong(Counter): ...": "inherit from Counter.cls",
        "counter.add.remote('x')": 'incompatible type "str"; expected "int | ObjectRef[int]"',
        "counter.add.remote(actors.put('x'))": 'incompatible type "str"; expected "int"',
        "counter.add.remote(amonut=1)": 'did you mean "amount"?',
        "counter.ad.remote(1)": '"Counter" has no method "ad"; maybe "add"?',
        "counter.kind": '"kind" of "Counter" is no method',
        "counter.remote(1)": '"Counter" has no method "remote"',
        "counter.add(1)": "not callable",
        "counter.add.map(['x'])": 'incompatible type "str"',
        "text: str = actors.get(counter.add.remote(1))": 'expression has type "int"',
        "group.add.remote('x')": 'incompatible type "str"',
        "double.remote('x')": 'incompatible type "str"; expected "int | ObjectRef[int]"',
        "double(1)": "not callable",
        "actors.remote(Sub).remote().mere.remote()": 'has no method "mere"; maybe "more"?',
        "use(3)": 'expected "ActorHandle[Counter]"',
    }
    refuses(checked, DECORATED, True, expected)


def test_without_the_plugin_the_call_form_knows_the_constructor_and_functions(checked: Any) -> None:
    expected = {
        "Remote": "actors.actorclass.ActorClass[[start: int =], program.Counter]",
        "counter": "ActorHandle[program.Counter]",
        "Remote.options(num_cpus=1).remote(actors.put(1))": "ActorHandle[program.Counter]",
        "counter.add.remote(1)": "Any",
        "double_.remote(1)": "ObjectRef[int]",
        "double_.remote(double_.remote(1))": "ObjectRef[int]",
        "count_.remote(1)": "actors.stream.ObjectRefGenerator[str]",
        "double_.options(num_returns=2).remote(1)": "Any",
        "actors.get(double_.remote(1))": "int",
    }
    reveals(checked, CALLED, False, expected)
    wrong = dict.fromkeys(("Remote.remote('x')", "double_.remote('x')", "double_.remote(y=1)"), "No overload variant")
    refuses(checked, CALLED, False, wrong)


def test_without_the_plugin_a_marked_class_gives_its_methods_parameters(checked: Any) -> None:
    expected = {
        "counter.add.remote(1)": "ObjectRef[int]",
        "counter.add.remote(actors.put(1))": "ObjectRef[int]",
        "counter.add.map([1])": "list[ObjectRef[int]]",
        "counter.wait.remote()": "ObjectRef[str]",
    }
    reveals(checked, MARKED, False, expected)
    refuses(checked, MARKED, False, {"counter.add.remote('x')": "No overload variant", "counter.ad": "no attribute"})
    reveals(checked, MARKED, True, {"counter": "ActorHandle[program.Counter]", **expected})


# -- run time ---------------------------------------------------------------------------------------------------------


@actors.remote
class Greeter:
    """Greets."""

    def __init__(self, greeting: str = "Hello") -> None:
        self.greeting = greeting

    def greet(self, name: str, *, punctuation: str = "!") -> str:
        """Returns a greeting.

        It is a friendly one.
        """
        return f"{self.greeting}, {name}{punctuation}"

    @actors.method
    def method(self, method: int, handle: int = 1) -> int:
        return method + handle


@actors.remote
def double(x: int, times: int = 1) -> int:
    """Doubles."""
    return x * 2**times


def test_a_remote_call_has_the_signature_and_docstring_of_what_it_calls(cluster: actors.Cluster) -> None:
    del cluster
    greeter = Greeter.remote("Hi")
    for shown in (greeter, pickle.loads(pickle.dumps(greeter))):
        assert str(inspect.signature(shown.greet.remote)) == "(name, *, punctuation=…)"
        assert shown.greet.__doc__ == shown.greet.remote.__doc__ == "Returns a greeting."
        assert shown.method.remote.__doc__ is None
        assert {"greet", "method"} <= set(dir(shown))
    assert str(inspect.signature(Greeter.remote)) == "(greeting: 'str' = 'Hello') -> 'None'"
    assert Greeter.remote.__doc__ == "Greets."
    assert inspect.signature(double.remote) == inspect.signature(double.function)
    assert double.remote.__doc__ == "Doubles."
    # What is called may have parameters of any name.
    assert actors.get(greeter.method.remote(method=2, handle=3)) == 5
    assert actors.get([*greeter.greet.map(["Ann"]), greeter.greet.remote("Bob", punctuation=".")]) == [
        "Hi, Ann!",
        "Hi, Bob.",
    ]
    assert actors.get(double.map([1, 2])) == [2, 4]


def test_what_travels_of_a_docstring_is_short() -> None:
    class Talker:
        def talk(self) -> None: ...

    Talker.talk.__doc__ = "x" * 100_000
    from actors.spec import describe

    assert len(describe(Talker).methods["talk"].doc or "") < 200


def test_a_mark_goes_before_a_method_with_options_by_name() -> None:
    for nonsense in (3, "io", int):
        with pytest.raises(TypeError, match="goes before a method"):
            actors.method(nonsense)
    with pytest.raises(TypeError, match="by name alone"):
        actors.method(len, num_returns=2)


# -- an interactive shell --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A kernel with an actor, of its own and quiet."""
    pytest.importorskip("ipykernel")
    from jupyter_client.manager import KernelManager

    # Not under TMPDIR: macOS gives a long one, and a socket's path has room for 103 bytes.
    folder = Path(tempfile.mkdtemp(prefix="jupyter-", dir="/tmp")).resolve()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
            patch.setenv(name, str(folder / name.lower()))
        patch.setenv("JUPYTER_PLATFORM_DIRS", "1")
        patch.delenv("PYTEST_CURRENT_TEST", raising=False)
        manager = KernelManager(transport="ipc", ip=str(folder / "kernel"))
        manager.start_kernel(env=dict(os.environ))
        client = manager.client()
        try:
            client.start_channels()
            client.wait_for_ready(timeout=PATIENCE)
            start = """
                import actors

                cluster = actors.init(local_nodes=1)

                @actors.remote
                class Greeter:
                    def greet(self, name, *, punctuation="!"):
                        "Returns a greeting."
                        return name + punctuation

                    def grow(self):
                        pass

                greeter = Greeter.remote()
            """
            reply = client.execute_interactive(textwrap.dedent(start), timeout=PATIENCE)
            assert reply["content"]["status"] == "ok", reply["content"]
            yield client
            client.execute_interactive("actors.shutdown()", timeout=PATIENCE)
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
            shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(
    ("code", "matches"),
    [
        ("greeter.gr", {"greet", "grow"}),
        ("greeter.greet.", {"remote", "map", "options"}),
        ("greeter.greet.remote(pun", {"punctuation="}),
        ("Greeter.", {"remote", "options", "group"}),
    ],
)
def test_a_kernel_completes(client: Any, code: str, matches: set[str]) -> None:
    reply = client.complete(code, reply=True, timeout=PATIENCE)["content"]
    last = {match.rpartition(".")[2] for match in reply["matches"]}
    assert matches <= last


def test_a_kernel_shows_the_parameters_while_they_are_typed(client: Any) -> None:
    reply = client.inspect("greeter.greet.remote(", reply=True, timeout=PATIENCE)["content"]
    assert reply["found"]
    text = re.sub(r"\x1b\[[0-9;]*m", "", reply["data"]["text/plain"])
    assert "(name, *, punctuation=…)" in text
    assert "Returns a greeting." in text
