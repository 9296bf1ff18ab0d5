"""What a runtime_env may hold, what of a folder is packed, and whether a package is taken for equal."""

from __future__ import annotations

import fcntl
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.address import Address
from actors.archive import check_size, extract, files_of, read_rules, write_archive
from actors.environment import NOT_HERE, Environment, Parcel, Requirements, check_environment
from actors.exceptions import RuntimeEnvError
from actors.node.venvs import KEPT, _clear
from actors.options import ActorOptions
from actors.parcels import Parcels
from actors.requirements import read_requirements

HERE = Address("driver-1", "host", "/nowhere.sock", "node-1")
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

names = st.text("abcXYZ09_-. é", min_size=1, max_size=8).filter(lambda name: name not in {".", ".."})
trees = st.dictionaries(
    st.lists(names, min_size=1, max_size=3).map("/".join), st.binary(max_size=200), min_size=1, max_size=8
)


def write_tree(folder: Path, tree: dict[str, bytes]) -> None:
    """Writes files by name; one whose folder is taken by a file, or the reverse, is left out."""
    for name, data in tree.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError:
            continue


def read_tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- what may be written ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "kind", "words"),
    [
        ([], TypeError, "runtime_env must be a dict"),
        ({"envvars": {}}, ValueError, "no key 'envvars'; there are: 'env_vars'"),
        ({"env_vars": ["A"]}, TypeError, "must be a dict of strings"),
        ({"env_vars": {"OMP_NUM_THREADS": 4}}, TypeError, "'OMP_NUM_THREADS' is 4"),
        ({"env_vars": {"A=B": "4"}}, ValueError, "no environment variable"),
        ({"env_vars": {"A": "\0"}}, ValueError, "no environment variable"),
        ({"working_dir": 3}, TypeError, r"\['working_dir'\] must be the path"),
        ({"working_dir": ""}, TypeError, r"\['working_dir'\] must be the path"),
        ({"working_dir": "s3://bucket/x.zip"}, NotImplementedError, "give a local path"),
        ({"py_modules": "folder"}, TypeError, "must be a list of paths or modules"),
        ({"py_modules": [3]}, TypeError, r"\['py_modules'\] must be the path"),
        ({"excludes": "*.bin", "working_dir": "."}, TypeError, "must be a list of strings"),
        ({"excludes": ["*.bin"]}, ValueError, "give one of them"),
        ({"pip": 3}, TypeError, r"\['pip'\] must be a list"),
        ({"pip": [3]}, TypeError, r"\['pip'\] must be a list"),
        ({"pip": {}}, ValueError, "must have the key 'packages'"),
        ({"pip": {"packages": [], "version": "1"}}, ValueError, "no key 'version'"),
        ({"pip": {"packages": ["x"], "pip_check": True}}, NotImplementedError, "pip_check"),
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_is_written(wrong: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        ActorOptions().merged(runtime_env=wrong)


@pytest.mark.parametrize("key", sorted(NOT_HERE))
def test_keys_of_rays_that_are_not_honoured_say_so(key: str) -> None:
    with pytest.raises(NotImplementedError, match=key):
        check_environment({key: "x"})


@pytest.mark.parametrize(
    "right",
    [
        None,
        {},
        {"env_vars": {"A": ""}},
        {"working_dir": Path("/nowhere"), "excludes": ["*.bin"]},
        {"py_modules": [math, "folder"]},
        {"pip": "requirements.txt"},
        {"pip": {"packages": ["x"], "pip_check": False, "pip_install_options": ["--no-deps"]}},
    ],
)
def test_what_is_right_is_taken(right: Any) -> None:
    check_environment(right)


# -- merging ----------------------------------------------------------------------------------------------------


def test_an_actors_own_keys_go_before_the_programs_and_variables_are_merged() -> None:
    mine, other = Parcel("1", "mine", HERE), Parcel("2", "other", HERE)
    base = Environment({"A": "base", "B": "base"}, other, (other,), Requirements(("x",)))
    own = Environment({"B": "own"}, mine)
    assert own.over(base) == Environment({"A": "base", "B": "own"}, mine, (other,), Requirements(("x",)))
    assert own.over(None) == own
    assert Environment().over(base) == base


def test_nothing_said_is_what_the_program_said(tmp_path: Path) -> None:
    parcels = Parcels(HERE, tmp_path)
    base = Environment({"A": "1"})
    assert parcels.prepare(None, base) is base
    assert parcels.prepare({}, base) is base
    assert parcels.prepare(None, None) is None
    assert not list(tmp_path.iterdir())


# -- packing ----------------------------------------------------------------------------------------------------


@QUICK
@given(tree=trees)
def test_what_is_packed_comes_out_the_same(tree: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("tree")
    write_tree(folder / "here", tree)
    write_archive(files_of(folder / "here"), folder / "packed")
    extract(folder / "packed", folder / "there")
    assert read_tree(folder / "there") == read_tree(folder / "here")


@QUICK
@given(tree=trees)
def test_equal_folders_have_equal_hashes(tree: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("tree")
    write_tree(folder / "one", tree)
    write_tree(folder / "two", dict(reversed(tree.items())))
    if read_tree(folder / "one") != read_tree(folder / "two"):  # a file in another's way: which one wins is the order's
        return
    os.utime(next(path for path in (folder / "two").rglob("*") if path.is_file()), (1, 1))
    one = write_archive(files_of(folder / "one"), folder / "packed-one")
    assert write_archive(files_of(folder / "two"), folder / "packed-two") == one
    assert (folder / "packed-one").read_bytes() == (folder / "packed-two").read_bytes()


@QUICK
@given(tree=trees, data=st.data())
def test_any_change_gives_another_hash(
    tree: dict[str, bytes], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    write_tree(folder / "tree", tree)
    before = write_archive(files_of(folder / "tree"), folder / "packed")
    path = data.draw(st.sampled_from(sorted(path for path in (folder / "tree").rglob("*") if path.is_file())))
    match data.draw(st.sampled_from(["content", "name", "mode", "gone"])):
        case "content":
            path.write_bytes(path.read_bytes() + b"!")
        case "name":
            path.rename(path.with_name("another name"))
        case "mode":
            path.chmod(0o755)
        case "gone":
            path.unlink()
    assert write_archive(files_of(folder / "tree"), folder / "packed") != before


def test_the_right_to_be_executed_travels(tmp_path: Path) -> None:
    script = tmp_path / "in" / "run.sh"
    write_tree(tmp_path / "in", {"run.sh": b"#!/bin/sh\n", "data": b""})
    script.chmod(0o755)
    write_archive(files_of(tmp_path / "in"), tmp_path / "packed")
    extract(tmp_path / "packed", tmp_path / "out")
    assert os.access(tmp_path / "out" / "run.sh", os.X_OK)
    assert not (tmp_path / "out" / "data").stat().st_mode & 0o100


def test_history_caches_and_what_git_ignores_stay_here(tmp_path: Path) -> None:
    tree = {
        ".git/config": b"", "__pycache__/a.pyc": b"", "a.py": b"", "data/big.bin": b"", "data/keep.bin": b"",
        "data/.gitignore": b"!keep.bin\n*.tmp\n", "data/x.tmp": b"", "x.tmp": b"", ".gitignore": b"*.bin\n# no\n\n",
        "build/lib/a.py": b"", "src/build/b.py": b"", "secret.txt": b"", "src/secret.txt": b"",
    }  # fmt: skip
    write_tree(tmp_path, tree)
    taken = {entry.name for entry in files_of(tmp_path, ["build/", "/secret.txt"])}
    assert taken == {"a.py", "data/keep.bin", "data/.gitignore", "x.tmp", ".gitignore", "src/secret.txt"}


@pytest.mark.parametrize(
    "lines",
    [
        ["*.py"], ["/*.py"], ["a"], ["a/"], ["a/b"], ["/a/**"], ["**/b"], ["a/**/c.py"], ["*", "!*.py", "!*/"],
        ["[ab]*"], ["[!a]*"], ["[^a]*"], ["[]a]*"], ["?.py"], ["a/*"], ["a/*", "!a/b"],
        ["\\!x"], ["c.p[x-z]"], ["**/*.txt", "!/d.txt"],
    ],
)  # fmt: skip
def test_rules_are_read_as_git_reads_them(lines: list[str], tmp_path: Path) -> None:
    tree = ["a/b/c.py", "a/c.py", "a/d.txt", "b/a/x", "b/c.pz", "c.py", "!x", "d.txt", "e/f/g/a/b", "e/b"]
    write_tree(tmp_path, dict.fromkeys(tree, b""))
    git = ["git", "-C", str(tmp_path), "-c", "core.excludesFile=/dev/null"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / ".git" / "info" / "exclude").write_text("\n".join(lines))
    listed = subprocess.run(
        [*git, "ls-files", "-z", "--others", "--exclude-standard"], check=True, capture_output=True, text=True
    )
    assert {entry.name for entry in files_of(tmp_path, lines)} == set(listed.stdout.split("\0")) - {""}


@QUICK
@given(line=st.text("ab/*?![]\\-^ .#", max_size=10))
def test_no_rule_breaks_the_reader(line: str) -> None:
    for rule in read_rules([line]):
        rule.matches("a/b", is_folder=False)


def test_links_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    write_tree(tmp_path, {"real/a.txt": b"a", "tree/b.txt": b"b"})
    (tmp_path / "tree" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "tree" / "again").symlink_to(tmp_path / "tree")
    (tmp_path / "tree" / "nowhere").symlink_to(tmp_path / "missing")
    os.mkfifo(tmp_path / "tree" / "pipe")
    assert [entry.name for entry in files_of(tmp_path / "tree")] == ["b.txt", "linked/a.txt"]


def test_what_is_too_big_names_the_biggest_files(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"f{size}.bin": b"x" * size * 1000 for size in range(1, 9)})
    with pytest.raises(RuntimeEnvError) as caught:
        check_size(files_of(tmp_path), "working_dir here", most=20_000)
    text = str(caught.value)
    assert "in 8 files" in text
    assert "excludes" in text
    assert [line.split()[-1] for line in text.splitlines()[1:]] == [f"f{size}.bin" for size in (8, 7, 6, 5, 4)]


def test_a_folder_is_packed_once_while_it_looks_the_same(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree", {"a.txt": b"a"})
    os.utime(tmp_path / "tree" / "a.txt", (1, 1))
    parcels = Parcels(HERE, tmp_path)
    env = {"working_dir": str(tmp_path / "tree")}
    first = parcels.prepare(env, None)
    assert first is not None
    assert first.working_dir is not None
    packed = tmp_path / "parcels-driver-1" / first.working_dir.digest
    packed.write_bytes(b"as it was")
    assert parcels.prepare(env, None) == first
    assert packed.read_bytes() == b"as it was"
    write_tree(tmp_path / "tree", {"a.txt": b"b"})
    assert parcels.prepare(env, None) != first


def test_modules_are_named_by_their_place(tmp_path: Path) -> None:
    write_tree(tmp_path, {"pkg/__init__.py": b"", "pkg/sub.py": b"", "single.py": b"", "other": b""})
    parcels = Parcels(HERE, tmp_path / "run")
    (tmp_path / "run").mkdir()

    def packed(module: Any) -> list[str]:
        found = parcels.prepare({"py_modules": [module]}, None)
        assert found is not None
        with zipfile.ZipFile(tmp_path / "run" / "parcels-driver-1" / found.parcels[0].digest) as archive:
            return archive.namelist()

    assert packed(tmp_path / "pkg") == ["pkg/__init__.py", "pkg/sub.py"]
    assert packed(str(tmp_path / "single.py")) == ["single.py"]
    assert "wave.py" in packed(__import__("wave"))
    assert {"json/__init__.py", "json/decoder.py"} <= set(packed(sys.modules["json.decoder"]))
    with pytest.raises(RuntimeEnvError, match=r"py_modules.*other is no folder, \.py"):
        packed(tmp_path / "other")
    with pytest.raises(RuntimeEnvError, match="'sys' is in no file"):
        packed(__import__("sys"))


@pytest.mark.parametrize(
    ("name", "words"), [("missing", "no folder and no .zip file here"), ("broken.zip", "as a zip file")]
)
def test_a_working_dir_that_is_none_is_refused(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    with pytest.raises(RuntimeEnvError, match=words):
        Parcels(HERE, tmp_path).prepare({"working_dir": str(tmp_path / name)}, None)


# -- requirements -----------------------------------------------------------------------------------------------


def test_a_requirements_file_is_read_with_those_it_includes(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("c==3  # why\n\n# nothing\n")
    (tmp_path / "all.txt").write_text("a==1\nb \\\n  >=2\n-r more.txt\n")
    assert read_requirements(tmp_path / "all.txt") == Requirements(("a==1", "b    >=2", "c==3"))
    assert read_requirements({"packages": ["a"], "pip_install_options": ["-U"]}) == Requirements(("a",), ("-U",))
    assert read_requirements([" ", "# a"]) is None


def test_a_requirements_file_that_cannot_be_sent_says_why(tmp_path: Path) -> None:
    (tmp_path / "loop.txt").write_text("-r loop.txt")
    (tmp_path / "bound.txt").write_text("-c constraints.txt\na")
    for name, words in (("loop.txt", "includes itself"), ("bound.txt", "write its versions"), ("no.txt", "a list")):
        with pytest.raises(RuntimeEnvError, match=words):
            read_requirements(str(tmp_path / name))


@QUICK
@given(lines=st.lists(st.text("abc=1.", min_size=1, max_size=5)), random=st.randoms())
def test_the_order_of_requirements_makes_no_other_environment(lines: list[str], random: Any) -> None:
    shuffled = random.sample(lines, len(lines))
    assert Requirements(tuple(lines)).digest == Requirements(tuple(shuffled)).digest
    assert Requirements((*lines, "another")).digest != Requirements(tuple(lines)).digest


# -- virtual environments ---------------------------------------------------------------------------------------


def test_virtual_environments_that_nobody_uses_are_cleared_away_oldest_first(tmp_path: Path) -> None:
    for number in range(KEPT + 3):
        (tmp_path / str(number)).mkdir()
        os.utime(tmp_path / str(number), (number, number))
    with (tmp_path / "1.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        _clear(tmp_path)
    left = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert left == {"1", *map(str, range(3, KEPT + 3))}
