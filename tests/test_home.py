"""Where things live, and that nothing of a dead cluster stays there."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from clusters import succeed

from actors import home
from actors.exceptions import ActorsError

SOCKET = "w-0123456789ab.sock"


@pytest.fixture(autouse=True)
def _own_home(monkeypatch, tmp_path_factory):
    tmp_path_factory.getbasetemp()  # pytest makes it where the temporary directory is at its first use
    # A path that can be short: pytest's own folders are too long for sockets.
    with tempfile.TemporaryDirectory(prefix="h", dir="/tmp") as short:
        monkeypatch.setenv("ACTORS_HOME", short)
        monkeypatch.setattr(tempfile, "tempdir", short)
        yield


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return output


# --- places


def test_everything_lies_under_actors_home():
    base = Path(os.environ["ACTORS_HOME"]).resolve()
    assert home.state_dir() == base
    for folder in (home.cache_dir(), home.log_dir(), home.socket_dir()):
        assert folder.is_relative_to(base)
        assert mode(folder) == 0o700
    assert len({home.state_dir(), home.cache_dir(), home.log_dir(), home.socket_dir()}) == 4


def test_a_missing_home_is_made_private(monkeypatch, tmp_path):
    monkeypatch.setenv("ACTORS_HOME", str(tmp_path / "a" / "b"))
    assert home.log_dir().is_dir()
    assert mode(tmp_path / "a" / "b") == 0o700


def test_without_actors_home_the_platform_says(monkeypatch, tmp_path):
    monkeypatch.setenv("ACTORS_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for folder in (home.state_dir(), home.cache_dir(), home.log_dir()):
        assert folder.is_relative_to(tmp_path.resolve())
        assert "mlx-actors" in folder.parts
        assert mode(folder) == 0o700


def test_a_link_to_a_folder_is_the_same_device(monkeypatch, tmp_path):
    direct = home.state_dir()
    (tmp_path / "link").symlink_to(direct)
    monkeypatch.setenv("ACTORS_HOME", str(tmp_path / "link"))
    assert home.state_dir() == direct


def test_a_relative_home_is_refused_with_the_path_to_use(monkeypatch):
    monkeypatch.setenv("ACTORS_HOME", "here")
    with pytest.raises(ActorsError, match=r"absolute.*set it to '/.*here'"):
        home.state_dir()


def test_a_file_in_the_place_of_home_is_refused(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ACTORS_HOME", str(tmp_path / "file"))
    with pytest.raises(ActorsError, match="not a folder"):
        home.state_dir()
    monkeypatch.setenv("ACTORS_HOME", str(tmp_path / "file" / "below"))
    with pytest.raises(ActorsError, match="cannot make the folder"):
        home.cache_dir()


def test_a_home_that_the_locale_cannot_read_is_refused(tmp_path):
    ascii_only = {"ACTORS_HOME": str(tmp_path / "café"), "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code = "from actors import home; home.state_dir()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **ascii_only}, capture_output=True, check=False
    )
    said = done.stderr.splitlines()[-1].decode("ascii", "backslashreplace")
    assert "this locale cannot read the name of the folder" in said
    assert said.endswith("set LC_ALL=C.UTF-8, or set ACTORS_HOME to a folder of your own")


@pytest.mark.parametrize("bits", [0o770, 0o707, 0o777])
def test_a_home_that_others_can_write_is_refused(bits):
    base = home.state_dir()
    base.chmod(bits)
    for place in (home.state_dir, home.cache_dir, home.socket_dir):
        with pytest.raises(ActorsError, match=r"open to others.*chmod 700"):
            place()
    base.chmod(0o755)
    assert home.state_dir() == base


def test_a_folder_of_another_user_is_refused(monkeypatch):
    base = home.state_dir()
    monkeypatch.setattr(os, "geteuid", lambda: base.stat().st_uid + 1)
    with pytest.raises(ActorsError, match=r"belongs to user .* set ACTORS_HOME"):
        home.state_dir()


# --- sockets


@pytest.mark.parametrize("length", [*range(40, 110, 3), 200, 1000])
def test_a_socket_fits_whatever_the_length_of_home(monkeypatch, length):
    base = os.environ["ACTORS_HOME"]
    name = "/" + "/".join(["x" * 100] * (length // 100) + ["y" * (length % 100 or 1)])
    monkeypatch.setenv("ACTORS_HOME", base + name)
    with home.run_dir("cluster1") as run:
        path = run.path / SOCKET
        assert len(os.fsencode(path)) <= home.SOCKET_PATH_LIMIT
        assert mode(run.path) == mode(run.path.parent) == 0o700
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
        inside = run.path.is_relative_to(home.state_dir())
        assert inside == (len(str(home.state_dir() / "run" / run.path.name / SOCKET)) <= home.SOCKET_PATH_LIMIT)


def test_long_homes_have_folders_of_their_own(monkeypatch):
    base = os.environ["ACTORS_HOME"]
    folders = []
    for letter in "ab":
        monkeypatch.setenv("ACTORS_HOME", f"{base}/{letter * 150}")
        folders += [home.socket_dir(), home.socket_dir()]
    assert len(set(folders)) == 2


def test_the_longest_temporary_directory_of_macos_is_short_enough(monkeypatch):
    base = os.environ["ACTORS_HOME"]
    temporary = Path(base, "t" * (48 - len(base) - 1))
    temporary.mkdir()
    monkeypatch.setenv("ACTORS_HOME", f"{base}/{'x' * 150}")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert home.socket_dir().parent == temporary


def test_a_long_temporary_directory_is_passed_over(monkeypatch):
    base = os.environ["ACTORS_HOME"]
    monkeypatch.setenv("ACTORS_HOME", f"{base}/{'x' * 150}")
    monkeypatch.setattr(tempfile, "tempdir", base + "/" + "t" * 80)
    folder = home.socket_dir()
    try:
        assert folder.parent == Path("/tmp")
    finally:
        folder.rmdir()


@pytest.mark.parametrize("premade", ["link", "open folder", "folder of another", "file"])
def test_a_folder_that_somebody_made_first_is_never_used(monkeypatch, tmp_path, premade):
    monkeypatch.setenv("ACTORS_HOME", f"{os.environ['ACTORS_HOME']}/{'x' * 150}")
    place = home.socket_dir()
    place.rmdir()
    if premade == "link":
        tmp_path.chmod(0o700)
        place.symlink_to(tmp_path)
    elif premade == "file":
        place.touch()
    else:
        place.mkdir(mode=0o700)
    if premade == "open folder":
        place.chmod(0o755)
    if premade == "folder of another":
        if os.geteuid() != 0:
            pytest.skip("only root can give a folder away")
        os.chown(place, 12345, -1)
    with pytest.raises(ActorsError, match=place.name):
        home.run_dir("node")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "ninechars", "a/b", "..", "Upper", "a b"])
def test_a_run_folder_has_a_short_plain_name(name):
    with pytest.raises(ValueError, match="1 to 8 of a-z and 0-9"):
        home.run_dir(name)


# --- life of a run folder

HOLD = """
import sys
from actors.home import run_dir
run = run_dir("node")
(run.path / "w-0123456789ab.sock").touch()
print(run.path, flush=True)
sys.stdin.read()
run.close()
"""


def test_run_folders_are_fresh_and_go_when_closed():
    with home.run_dir("node") as first, home.run_dir("node") as second:
        assert first.path != second.path
        (first.path / "deeper").mkdir()
        (first.path / "deeper" / SOCKET).touch()
    first.close()
    assert list(home.socket_dir().iterdir()) == []


def test_sweep_leaves_the_living_and_takes_the_killed():
    with start(HOLD) as living, start(HOLD) as killed:
        paths = [Path(process.stdout.readline().strip()) for process in (living, killed)]
        assert home.sweep() == []
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait(timeout=10)
        assert home.sweep() == [paths[1]]
        assert [path.exists() for path in paths] == [True, False]
        finish(living)
    assert list(home.socket_dir().iterdir()) == []


def test_sweep_takes_a_folder_whose_owner_died_before_locking_it():
    folder = home.socket_dir() / "node-123456"
    folder.mkdir()
    assert home.sweep() == [folder]


def test_sweep_never_follows_a_link(tmp_path):
    (tmp_path / "kept").touch()
    (home.socket_dir() / "node-123456").symlink_to(tmp_path)
    (home.socket_dir() / "a-file").touch()
    dead = home.socket_dir() / "node-234567"
    dead.mkdir()
    (dead / "link").symlink_to(tmp_path)
    assert home.sweep() == [dead]
    assert (tmp_path / "kept").exists()


def test_a_folder_swept_while_it_is_made_is_not_used(monkeypatch):
    take, swept = home._take, []

    def sweep_first(descriptor: int) -> bool:
        # What a sweep may do between the opening of the lock file and its locking.
        if not swept:
            swept.extend(home.socket_dir().iterdir())
            shutil.rmtree(swept[0])
        return take(descriptor)

    monkeypatch.setattr(home, "_take", sweep_first)
    with home.run_dir("node") as run:
        assert (run.path / "lock").exists()
        assert swept != [run.path]


RACE = """
from actors.home import run_dir, sweep
for _ in range(300):
    with run_dir("race") as run:
        socket = run.path / "w-0123456789ab.sock"
        socket.touch()
        sweep()
        assert socket.exists() and (run.path / "lock").exists()
    sweep()
"""


def test_making_and_sweeping_race_without_harm():
    with start(RACE) as first, start(RACE) as second:
        finish(first)
        finish(second)
    assert list(home.socket_dir().iterdir()) == []


# --- locks and files


def test_a_lock_is_free_when_its_holder_is_killed(tmp_path):
    program = """
import sys
from pathlib import Path
from actors.home import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
    with start(program, str(tmp_path / "lock")) as holder:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(ActorsError, match=r"another process has held .*lock for 0.1 s"),
            home.locked(tmp_path / "lock", timeout=0.1),
        ):
            pass
        killer = threading.Timer(0.1, holder.kill)
        killer.start()
        with home.locked(tmp_path / "lock"):
            assert holder.wait(timeout=10) == -signal.SIGKILL
        killer.join()


def test_a_private_file_is_replaced_whole(tmp_path):
    path = tmp_path / "file"
    (tmp_path / "file.new").write_text("left by a killed writer")
    for data in (b"one", b"two"):
        home.write_private(path, data)
        assert path.read_bytes() == data
        assert mode(path) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_importing_is_light():
    program = """
import sys
import actors.home, actors.identity
print(*sorted({"cryptography", "grpc", "platformdirs", "numpy", "psutil", "zeroconf"} & set(sys.modules)))
"""
    with start(program) as process:
        assert finish(process).strip() == ""


HOMES = """
    import os, tempfile
    import actors

    @actors.remote
    class Here:
        def home(self):
            return os.environ["ACTORS_HOME"]

    base = os.environ["ACTORS_HOME"]
    for name in ("one", "other"):
        os.environ["ACTORS_HOME"] = home = os.path.join(base, name)
        with actors.init():
            assert actors.get(Here.remote().home.remote(), timeout=20) == home
        print(name)
"""


def test_a_program_may_change_its_home_between_two_clusters():
    assert succeed(HOMES) == ["one", "other"]
