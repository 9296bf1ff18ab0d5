"""An actor's process gets the environment it asked for: variables, folders, modules, packages."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import signal
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from clusters import Counter, eventually, failure, succeed

import actors
from actors.exceptions import ActorDiedError, RuntimeEnvError
from actors.node.environments import UNUSED_FOLDERS

pytestmark = pytest.mark.usefixtures("cluster")
PATIENCE = 60.0


@actors.remote
class Inside:
    """Says what it sees from inside its process."""

    def variable(self, name: str) -> str | None:
        return os.environ.get(name)

    def folder(self) -> str:
        return os.getcwd()

    def path(self) -> list[str]:
        return list(sys.path)

    def read(self, name: str) -> str:
        return Path(name).read_text()

    def write(self, name: str, text: str) -> None:
        Path(name).write_text(text)

    def attribute(self, module: str, name: str) -> Any:
        return getattr(__import__(module), name)

    def in_a_process_of_its_own(self, code: str) -> str:
        import subprocess

        return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout

    def pid(self) -> int:
        return os.getpid()

    def child(self, **options: Any) -> actors.ActorHandle:
        self.kept = Inside.options(**options).remote()
        return self.kept


def get(ref: Any) -> Any:
    return actors.get(ref, timeout=PATIENCE)


def inside(env: dict[str, Any], **options: Any) -> actors.ActorHandle:
    return Inside.options(runtime_env=env, **options).remote()


def node_names() -> list[str]:
    return [node.name for node in actors.nodes()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with a module, data, and a module with the name of one of Python's own."""
    place = tmp_path / "work"
    (place / "data").mkdir(parents=True)
    (place / "travelling_helper.py").write_text("VALUE = 1\n")
    if "ACTORS_TEST_RAY" not in os.environ:  # Ray's own process would take it for Python's
        (place / "queue.py").write_text("raise SystemExit('not this one')\n")
    (place / "data" / "text.txt").write_text("some text")
    return place


# -- variables --------------------------------------------------------------------------------------------------


def test_variables_are_set_before_the_interpreter_starts() -> None:
    actor = inside({"env_vars": {"OMP_NUM_THREADS": "3", "PYTHONHASHSEED": "0", "A": "${HOME}/a:${NOT_SET_HERE}"}})
    assert get(actor.variable.remote("OMP_NUM_THREADS")) == "3"
    assert get(actor.variable.remote("A")) == f"{os.environ['HOME']}/a:"
    other = inside({"env_vars": {"PYTHONHASHSEED": "0"}})
    hashes = [get(each.in_a_process_of_its_own.remote("print(hash('a'))")) for each in (actor, other)]
    assert hashes[0] == hashes[1]


def test_a_pythonpath_of_ones_own_does_not_hide_this_package(tmp_path: Path) -> None:
    (tmp_path / "on_the_path.py").write_text("VALUE = 5\n")
    actor = inside({"env_vars": {"PYTHONPATH": str(tmp_path)}})
    assert get(actor.attribute.remote("on_the_path", "VALUE")) == 5


def test_an_actor_without_an_environment_has_the_nodes_own() -> None:
    inside({"env_vars": {"LEAKED": "yes"}})
    actor = Inside.remote()
    assert get(actor.variable.remote("LEAKED")) is None
    assert get(actor.folder.remote()) == os.getcwd()


def test_children_inherit_and_add_their_own(folder: Path) -> None:
    parent = inside({"env_vars": {"A": "1", "B": "1"}, "working_dir": str(folder)}, node=node_names()[1])
    child = get(parent.child.remote(runtime_env={"env_vars": {"B": "2"}}, node=node_names()[2]))
    assert [get(child.variable.remote(name)) for name in "AB"] == ["1", "2"]
    assert get(child.read.remote("data/text.txt")) == "some text"


def test_members_of_a_group_have_it_too(folder: Path) -> None:
    group = Inside.options(runtime_env={"working_dir": str(folder)}).group(3)
    assert [get(member.attribute.remote("travelling_helper", "VALUE")) for member in group] == [1, 1, 1]


def test_a_task_has_the_environment_it_asks_for(folder: Path) -> None:
    @actors.remote(runtime_env={"env_vars": {"A": "task"}, "working_dir": str(folder)})
    def see() -> tuple[str | None, str]:
        return os.environ.get("A"), Path("data/text.txt").read_text()

    @actors.remote
    def plain() -> str | None:
        return os.environ.get("A")

    assert [get(see.remote()) for _ in range(3)] == [("task", "some text")] * 3
    assert get(plain.remote()) is None
    assert get(see.options(runtime_env={"env_vars": {"A": "other"}, "working_dir": folder}).remote())[0] == "other"


def test_an_actor_made_anew_has_the_same_environment(folder: Path) -> None:
    actor = inside({"env_vars": {"A": "1"}, "working_dir": str(folder)}, max_restarts=1, max_task_retries=1)
    before = get(actor.pid.remote())
    os.kill(before, signal.SIGKILL)
    assert get(actor.read.remote("data/text.txt")) == "some text"
    assert get(actor.variable.remote("A")) == "1"
    assert get(actor.pid.remote()) != before


# -- folders ----------------------------------------------------------------------------------------------------


def test_a_working_dir_is_where_the_actor_runs_and_imports_from(folder: Path) -> None:
    for name in node_names():
        actor = inside({"working_dir": str(folder)}, node=name)
        assert get(actor.read.remote("data/text.txt")) == "some text"
        assert get(actor.attribute.remote("travelling_helper", "VALUE")) == 1
        assert get(actor.path.remote())[0] == get(actor.folder.remote()) != str(folder)
        code = "import travelling_helper; print(travelling_helper.VALUE)"
        assert get(actor.in_a_process_of_its_own.remote(code)) == "1\n"


def test_equal_folders_are_one_on_a_node_and_a_changed_one_is_new(folder: Path) -> None:
    node = node_names()[1]
    one, two = (inside({"working_dir": str(folder)}, node=node) for _ in range(2))
    assert get(one.folder.remote()) == get(two.folder.remote())
    (folder / "travelling_helper.py").write_text("VALUE = 2\n")
    (folder / "left_out.bin").write_text("x")
    three = inside({"working_dir": str(folder), "excludes": ["*.bin"]}, node=node)
    assert get(three.folder.remote()) != get(one.folder.remote())
    assert get(three.attribute.remote("travelling_helper", "VALUE")) == 2
    assert "No such file" in str(failure(three.read.remote("left_out.bin")))
    assert get(two.attribute.remote("travelling_helper", "VALUE")) == 1


def test_what_an_actor_writes_does_not_come_back_to_the_caller(folder: Path) -> None:
    get(inside({"working_dir": str(folder)}).write.remote("result.txt", "r"))
    assert not (folder / "result.txt").exists()


def test_a_zip_file_is_a_working_dir_too(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "work.zip", "w") as archive:
        archive.writestr("data/text.txt", "from the zip")
    assert get(inside({"working_dir": str(tmp_path / "work.zip")}).read.remote("data/text.txt")) == "from the zip"


def test_a_large_folder_travels(tmp_path: Path) -> None:
    data = os.urandom(10 << 20)
    (tmp_path / "big.bin").write_bytes(data)
    actor = inside({"working_dir": str(tmp_path)}, node=node_names()[2])
    code = "import hashlib; print(hashlib.sha256(open('big.bin','rb').read()).hexdigest())"
    assert get(actor.in_a_process_of_its_own.remote(code)).strip() == hashlib.sha256(data).hexdigest()


def test_a_node_gets_a_folder_from_another_node_where_its_packer_has_it_no_more(folder: Path) -> None:
    names = node_names()
    env = {"working_dir": str(folder)}
    (folder / "only_here.txt").write_text("so that no node has an equal folder from before")
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))  # else it would be looked at anew
    first = inside(env, node=names[1])
    digest = Path(get(first.folder.remote())).name
    (mine,) = Path(os.environ["ACTORS_HOME"]).glob(f"run/*/parcels-driver-*/{digest}")
    mine.unlink()
    assert get(inside(env, node=names[2]).read.remote("data/text.txt")) == "some text"
    for copy in Path(os.environ["ACTORS_HOME"]).glob(f"run/*/env-*/{digest}"):
        copy.unlink()
    error = failure(inside(env, node=names[0]).pid.remote(), within=PATIENCE)
    assert isinstance(error.__cause__, RuntimeEnvError)
    assert f"runtime_env['working_dir']: {folder} could not be had" in str(error)
    assert f"(node {names[0]})" in str(error)


def test_folders_that_nobody_uses_any_more_are_removed_but_for_a_few(tmp_path: Path) -> None:
    made = []
    for number in range(UNUSED_FOLDERS + 3):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "number.txt").write_text(str(number))
        made.append(inside({"working_dir": str(tmp_path / str(number))}, node=node_names()[2]))
    folders = [Path(get(actor.folder.remote())) for actor in made]
    assert [(folder / "number.txt").read_text() for folder in folders] == [str(n) for n in range(len(made))]
    for actor in made[1:]:
        actors.kill(actor)
    eventually(lambda: sum(folder.exists() for folder in folders[1:]) <= UNUSED_FOLDERS)
    assert get(made[0].read.remote("number.txt")) == "0"


def test_modules_of_every_kind_are_importable(tmp_path: Path) -> None:
    package = tmp_path / "sent_package"
    package.mkdir()
    (package / "__init__.py").write_text("from sent_package.part import VALUE\n")
    (package / "part.py").write_text("VALUE = 11\n")
    (tmp_path / "sent_single.py").write_text("VALUE = 12\n")
    build_wheel(tmp_path, "sent_wheel", "1.0")
    actor = inside(
        {"py_modules": [str(package), tmp_path / "sent_single.py", tmp_path / "sent_wheel-1.0-py3-none-any.whl"]}
    )
    assert get(actor.attribute.remote("sent_package", "VALUE")) == 11
    assert get(actor.attribute.remote("sent_single", "VALUE")) == 12
    assert get(actor.attribute.remote("sent_wheel", "__version__")) == "1.0"
    assert get(actor.folder.remote()) == os.getcwd()


def test_an_imported_module_is_sent_from_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imported_here.py").write_text("VALUE = 13\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__("imported_here")
    try:
        assert get(inside({"py_modules": [module]}).attribute.remote("imported_here", "VALUE")) == 13
    finally:
        del sys.modules["imported_here"]


def test_a_folder_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(RuntimeEnvError, match=r"is no folder and no \.zip file"):
        inside({"working_dir": str(tmp_path / "missing")})


# -- packages ---------------------------------------------------------------------------------------------------


def build_wheel(folder: Path, name: str, version: str) -> None:
    """Writes the smallest wheel there can be."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": f"__version__ = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = io.StringIO()
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record.write(f"{path},sha256={digest},{len(text)}\n")
        wheel.writestr(f"{info}/RECORD", f"{record.getvalue()}{info}/RECORD,,\n")


def test_packages_are_installed_once_for_those_who_ask(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    build_wheel(tmp_path, "tinypackage", "1.2")
    env = {"pip": ["--no-index", f"--find-links {tmp_path}", "tinypackage==1.2"], "env_vars": {"A": "1"}}
    pair = [inside(env, node=node) for node in (node_names()[0], node_names()[0], node_names()[1])]
    assert [get(actor.attribute.remote("tinypackage", "__version__")) for actor in pair] == ["1.2"] * 3
    places = {get(actor.attribute.remote("tinypackage", "__file__")) for actor in pair}
    assert len(places) == 1, "one for all nodes of this machine"
    assert get(pair[0].variable.remote("A")) == "1"
    # What is installed beside this Python is there as before, and this package is the same one.
    assert get(pair[0].attribute.remote("numpy", "__name__")) == "numpy"
    assert get(pair[0].attribute.remote("actors", "__file__")) == actors.__file__
    assert "No module named 'tinypackage'" in str(failure(Inside.remote().attribute.remote("tinypackage", "x")))
    shown = ""

    def was_told() -> bool:
        nonlocal shown
        shown += capfd.readouterr().err
        return "done in" in shown

    eventually(was_told)
    assert shown.count("done in") == 1
    assert f"(node {node_names()[0]}) pip install --no-index" in shown or f"(node {node_names()[1]})" in shown


def test_what_pip_cannot_install_says_where_and_why() -> None:
    node = node_names()[1]
    actor = inside({"pip": {"packages": ["no-such-package==1.0"], "pip_install_options": ["--no-index"]}}, node=node)
    error = failure(actor.pid.remote(), within=PATIENCE)
    assert isinstance(error, ActorDiedError)
    assert isinstance(error, RuntimeEnvError)
    assert isinstance(error.__cause__, RuntimeEnvError)
    for word in ("runtime_env['pip']", f"node {node}", "no-such-package==1.0", "No matching distribution"):
        assert word in str(error)
    ready = Path(os.environ["ACTORS_HOME"], "cache", "venvs").glob("*/ready")
    assert not any("no-such-package" in path.with_name("requirements.txt").read_text() for path in ready)


def test_an_environment_in_which_no_process_starts_says_what_it_printed() -> None:
    actor = inside({"env_vars": {"PYTHONHOME": "/nowhere"}})
    error = failure(actor.pid.remote(), within=PATIENCE)
    assert isinstance(error, ActorDiedError)
    assert isinstance(error.__cause__, RuntimeEnvError)
    assert "env_vars" in str(error)
    assert "No module named 'encodings'" in str(error)
    assert get(Counter.remote().add.remote()) == 1


def test_the_name_of_an_actor_that_could_not_be_made_is_free() -> None:
    with pytest.raises(RuntimeEnvError):
        inside({"env_vars": {"PYTHONHOME": "/nowhere"}}, name="retried")
    assert get(inside({"env_vars": {"B": "1"}}, name="retried").variable.remote("B")) == "1"


# -- of a whole program -----------------------------------------------------------------------------------------


def test_a_programs_environment_holds_for_all_its_actors() -> None:
    code = """
        import os, pathlib, actors

        @actors.remote
        class A:
            def see(self):
                return [os.environ.get("X"), os.environ.get("Y"), pathlib.Path("beside.txt").read_text().strip()]

        with actors.init(runtime_env={"working_dir": ".", "env_vars": {"X": "program", "Y": "program"}}):
            print(actors.get(A.remote().see.remote()))
            own = A.options(runtime_env={"env_vars": {"Y": "own"}}).remote()
            print(actors.get(own.see.remote()))
            home = pathlib.Path(os.environ["ACTORS_HOME"])
            assert list(home.glob("run/*/env-*"))
        assert not list(home.glob("run/*"))
        try:
            actors.init(runtime_env={"env": {}})
        except ValueError as error:
            print("refused", error)
        """
    printed = succeed(code, beside={"beside.txt": "here"})
    assert printed[:2] == ["['program', 'program', 'here']", "['program', 'own', 'here']"]
    assert printed[2].startswith("refused runtime_env has no key 'env'")
