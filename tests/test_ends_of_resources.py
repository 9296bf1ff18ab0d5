"""Where descriptors, memory, room or depth come to an end: a clear error or success, and the process lives."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
from clusters import eventually, failure, slow, succeed
from relay import Detour

import actors
from actors.cluster import current
from actors.exceptions import ActorDiedError, SerializationError, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("cluster")
PATIENCE = 60.0
DEEP = 100_000
MANY = 1_000_000
GIB = 1 << 30
SPARE_BYTES = 100 << 20
BIG_BYTES = 300 << 20  # more than a process keeps of its large memory, to be used again


@actors.remote
class Eater:
    """Uses up what there is."""

    def ping(self) -> str:
        return "here"

    def echo(self, value: Any) -> Any:
        return value

    def count(self, *values: int, **named: int) -> int:
        return len(values) + len(named)

    def deep(self, depth: int) -> list[Any]:
        return nested(depth)

    def many(self, count: int) -> tuple[int, ...]:
        return tuple(range(count))

    def zeros(self, size: int) -> np.ndarray[Any, Any]:
        value = np.zeros(size, np.uint8)
        value[-1] = 7
        return value

    @actors.method(num_returns=2)
    def two(self, size: int) -> tuple[bytes, np.ndarray[Any, Any]]:
        return b"small", np.ones(size, np.uint8)

    def each(self, *sizes: int) -> Iterator[np.ndarray[Any, Any]]:
        for size in sizes:
            yield np.ones(size, np.uint8)

    def take_no_more_memory(self) -> None:
        self.limits = resource.getrlimit(resource.RLIMIT_AS)
        limit_memory()

    def take_memory_again(self) -> None:
        resource.setrlimit(resource.RLIMIT_AS, self.limits)

    def take_all_descriptors(self) -> int:
        self.files = all_descriptors(256)
        return len(self.files)

    def give_them_back(self) -> None:
        for file in self.files:
            os.close(file)

    def ask(self, other: Any) -> str:
        return str(actors.get(other.ping.remote(), timeout=PATIENCE))


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def all_descriptors(limit: int) -> list[int]:
    """Opens files until there are no more to be had; the limit is lowered first, so that this is soon."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limit, psutil.Process().num_fds() + 8), hard))
    files = []
    with contextlib.suppress(OSError):
        while True:
            files.append(os.open(os.devnull, os.O_RDONLY))
    return files


def limit_memory() -> None:
    """This process may take `SPARE_BYTES` more."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + SPARE_BYTES, hard))


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """This process may take little more memory."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    limit_memory()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """This process has none left."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = all_descriptors(0)
    try:
        yield
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.fixture
def eater() -> Any:
    eater = Eater.remote()
    assert actors.get(eater.ping.remote(), timeout=PATIENCE) == "here"
    return eater


# -- depth and number -------------------------------------------------------------------------------------------


def test_what_is_nested_too_deeply_is_an_error_at_each_end(eater: Any) -> None:
    deep = nested(DEEP)
    for send in (lambda: eater.echo.remote(deep), lambda: eater.echo.remote(value=deep), lambda: actors.put(deep)):
        with pytest.raises(SerializationError, match="nested too deeply"):
            actors.get(send(), timeout=PATIENCE)
    error = failure(eater.deep.remote(DEEP), PATIENCE)
    assert isinstance(error, SerializationError)
    assert "nested too deeply" in str(error)
    assert actors.get(eater.ping.remote(), timeout=PATIENCE) == "here"


def test_a_million_arguments(eater: Any) -> None:
    assert actors.get(eater.count.remote(*range(MANY)), timeout=PATIENCE) == MANY
    assert len(actors.get(eater.many.remote(MANY), timeout=PATIENCE)) == MANY
    assert actors.get(eater.count.remote(**{f"k{n}": n for n in range(10_000)}), timeout=PATIENCE) == 10_000


# -- descriptors ------------------------------------------------------------------------------------------------


def test_an_actor_without_descriptors_answers_and_who_is_new_waits(eater: Any) -> None:
    other = Eater.remote()
    assert actors.get(other.ping.remote(), timeout=PATIENCE) == "here"
    array = np.arange(1 << 19, dtype=np.float64)
    assert np.array_equal(actors.get(eater.echo.remote(array), timeout=PATIENCE), array)  # numpy is loaded there
    assert actors.get(eater.take_all_descriptors.remote(), timeout=PATIENCE) > 50
    assert actors.get(eater.ping.remote(), timeout=PATIENCE) == "here"
    asked = other.ask.remote(eater)  # it has never spoken to that process before
    assert actors.wait([asked], timeout=1.5) == ([], [asked])
    actors.get(eater.give_them_back.remote(), timeout=PATIENCE)
    assert actors.get(asked, timeout=PATIENCE) == "here"
    assert np.array_equal(actors.get(eater.echo.remote(array), timeout=PATIENCE), array)


def test_a_program_without_descriptors_goes_on_with_what_it_has(eater: Any) -> None:
    array = np.arange(1 << 19, dtype=np.float64)
    made = actors.get(eater.zeros.remote(4 << 20), timeout=PATIENCE)
    assert made[-1] == 7
    with no_descriptors():
        assert actors.get(eater.ping.remote(), timeout=PATIENCE) == "here"
        assert actors.get(eater.zeros.remote(4 << 20), timeout=PATIENCE)[-1] == 7
    assert np.array_equal(actors.get(eater.echo.remote(array), timeout=PATIENCE), array)
    assert actors.get(Eater.remote().ping.remote(), timeout=PATIENCE) == "here"


@pytest.mark.slow
def test_a_program_without_descriptors_is_told_why_it_cannot_reach_a_new_actor(eater: Any) -> None:
    process = current()
    memory = process.arena
    assert memory is not None

    def has_given_back() -> bool:  # else connections and shared memory of the tests before go meanwhile, each with one
        gc.collect()
        memory.trim(0)
        workers = [id for id in process._peers if id.startswith("worker")]
        return memory.mapped == 0 and len(workers) == 1

    eventually(has_given_back)
    with no_descriptors():
        new = Eater.remote()
        error = failure(new.ping.remote(), 100)  # other connections may be wanted before, each for as long
        assert isinstance(error, ActorDiedError)
        assert "Too many open files" in str(error)
    assert actors.get(eater.ping.remote(), timeout=PATIENCE) == "here"
    assert actors.get(Eater.remote().ping.remote(), timeout=PATIENCE) == "here"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets one set the limits of another process")
def test_a_node_without_descriptors_says_so_and_goes_on(eater: Any) -> None:
    node = actors.nodes()[1]
    there = Eater.options(node=node.id).remote()
    assert actors.get(there.ping.remote(), timeout=PATIENCE) == "here"
    process = psutil.Process(node.pid)
    soft, hard = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds(), hard))
    try:
        first, *refs = [Eater.options(node=node.id).remote().ping.remote() for _ in range(3)]
        for error in (failure(ref, PATIENCE) for ref in refs):
            assert isinstance(error, ActorDiedError)
            assert error.verdict is Verdict.NEVER_STARTED
            assert f"node {node.name} cannot start a process: Too many open files" in str(error)
            assert "ulimit -n" in str(error)
        assert actors.get([there.ping.remote(), eater.ping.remote()], timeout=PATIENCE) == ["here", "here"]
    finally:
        process.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))
    assert actors.wait([first], timeout=PATIENCE)[0] == [first]  # it may have had the spare worker
    assert actors.get(Eater.options(node=node.id).remote().ping.remote(), timeout=PATIENCE) == "here"


# -- memory and room --------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to its share of addresses")
@pytest.mark.parametrize("lane", ["memory", *slow("socket", "door")])
def test_what_a_process_has_no_memory_for_fails_one_call_and_no_other(lane: str) -> None:
    eater = Eater.options(node=actors.nodes()[1].id).remote()
    assert actors.get(eater.ping.remote(), timeout=PATIENCE) == "here"
    with contextlib.ExitStack() as stack:
        detour = stack.enter_context(Detour(eater, lane)) if lane != "memory" else None

        def call(method: str, *values: Any) -> Any:
            return getattr(eater, method).remote(*values) if detour is None else detour.call(method, *values)

        def no_room(ref: Any) -> None:
            error = failure(ref, PATIENCE)
            assert isinstance(error, MemoryError), error
            assert "had no room for the 314,57" in str(error), error
            assert actors.get(call("ping"), timeout=PATIENCE) == "here"

        size = 2 << 20
        assert actors.get(call("echo", np.ones(size, np.uint8)), timeout=PATIENCE).sum() == size  # numpy is loaded
        big = np.ones(BIG_BYTES, np.uint8)
        actors.get(call("take_no_more_memory"), timeout=PATIENCE)
        before, after = call("count", 1), None
        for value in (big, big.data.tobytes()):
            refused, after = call("echo", value), call("count", 1, 2)
            assert actors.get([before, after], timeout=PATIENCE) == [1, 2]
            no_room(refused)
        actors.get(call("take_memory_again"), timeout=PATIENCE)
        del big, value
        gc.collect()
        arena = current().arena
        assert arena is not None
        arena.trim(0)  # else what is kept mapped may be read again
        with little_memory():
            no_room(call("zeros", BIG_BYTES))
            for part in call("two", BIG_BYTES):
                no_room(part)
            first, second, third = [*call("each", 10, BIG_BYTES, 20)]
            assert [len(actors.get(one, timeout=PATIENCE)) for one in (first, third)] == [10, 20]
            no_room(second)
        assert actors.get(call("zeros", BIG_BYTES), timeout=PATIENCE)[-1] == 7


SMALL_MEMORY = """
    import os, sys
    import numpy as np
    import actors

    @actors.remote
    class Keeper:
        def __init__(self):
            self.kept = []
        def echo(self, value):
            return value
        def keep(self, value):
            self.kept.append(value)
            return float(value[-1])
        def make(self, size):
            return np.full(size, 3, np.uint8)

    room = os.statvfs("/dev/shm")
    assert room.f_blocks * room.f_frsize == 64 << 20, room
    with actors.init():
        keeper = Keeper.remote()
        large = np.arange(12 << 20, dtype=np.float64)  # 96 MiB: it never fits
        assert np.array_equal(actors.get(keeper.echo.remote(large), timeout=60), large)
        assert actors.get(keeper.make.remote(100 << 20), timeout=60).sum() == 3 * (100 << 20)
        held = [actors.put(np.full(8 << 20, n, np.uint8)) for n in range(16)]  # 128 MiB in all
        assert actors.get([keeper.keep.remote(ref) for ref in held], timeout=60) == [float(n) for n in range(16)]
        assert [int(actors.get(ref)[0]) for ref in held] == list(range(16))
        with open("/dev/shm/full", "wb") as full:  # somebody else takes the rest
            try:
                while True:
                    full.write(bytes(1 << 20))
                    full.flush()
            except OSError:
                pass
        assert np.array_equal(actors.get(keeper.echo.remote(large[:1 << 20]), timeout=60), large[:1 << 20])
        assert actors.get(keeper.make.remote(20 << 20), timeout=60).sum() == 3 * (20 << 20)
        print("small and full", flush=True)
"""


def mounted(script: str, code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a program with mounts of its own, which nobody else sees."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root on Linux mounts memory of a size of its own")
    program = folder / "program.py"
    program.write_text(textwrap.dedent(code))
    return subprocess.run(
        ["unshare", "-m", "sh", "-ec", f"{script}\nexec {sys.executable} {program}"],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=150, check=False, cwd=folder,
    )  # fmt: skip


def test_shared_memory_of_64_mib_that_fills_up(tmp_path: Path) -> None:
    done = mounted("mount -t tmpfs -o size=64m tmpfs /dev/shm", SMALL_MEMORY, tmp_path)
    assert (done.returncode, done.stdout) == (0, "small and full\n"), done.stderr


NO_ROOM = """
    import actors
    try:
        actors.init()
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_a_state_folder_without_room_is_an_error_that_says_so(tmp_path: Path) -> None:
    home = Path(tempfile.mkdtemp(prefix="room-", dir="/tmp"))  # a socket's path has room for 103 bytes
    script = f"mount -t tmpfs -o size=32k,nr_inodes=2 tmpfs {home}; chmod 700 {home}"
    try:
        done = mounted(script, NO_ROOM, tmp_path, ACTORS_HOME=str(home))
    finally:
        home.rmdir()
    assert done.returncode == 0, done.stderr
    assert "No space left" in done.stdout, (done.stdout, done.stderr)


FULL_LATER = """
    import os
    import numpy as np
    import actors

    @actors.remote
    class Echo:
        def echo(self, value):
            return value

    def fill(name):
        with open(os.path.join(os.environ["ACTORS_HOME"], name), "wb", 0) as full:
            try:
                while True:
                    full.write(bytes(1024))
            except OSError as error:
                return error.strerror

    with actors.init():
        echo = Echo.remote()
        assert actors.get(echo.echo.remote(1), timeout=60) == 1
        print(fill("full"), flush=True)
        large = np.arange(1 << 20, dtype=np.float64)
        assert np.array_equal(actors.get(echo.echo.remote(large), timeout=60), large)
        try:
            print(actors.get(Echo.remote().echo.remote(2), timeout=60))
        except actors.exceptions.ActorError as error:
            print(error)
        os.unlink(os.path.join(os.environ["ACTORS_HOME"], "full"))
        assert actors.get(Echo.remote().echo.remote(3), timeout=60) == 3
        assert actors.get(echo.echo.remote(4), timeout=60) == 4
        print("full and free again")
"""


def test_a_state_folder_that_fills_up_later_harms_nobody(tmp_path: Path) -> None:
    home = Path(tempfile.mkdtemp(prefix="room-", dir="/tmp"))
    try:
        script = f"mount -t tmpfs -o size=2m tmpfs {home}; chmod 700 {home}"
        done = mounted(script, FULL_LATER, tmp_path, ACTORS_HOME=str(home))
    finally:
        home.rmdir()
    assert done.returncode == 0, (done.stdout, done.stderr)
    first, *_, last = done.stdout.splitlines()
    assert (first, last) == ("No space left on device", "full and free again"), done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("lane", "size"), [("memory", 5 * GIB), ("door", 5 * GIB // 2)])
def test_a_result_of_many_gib(lane: str, size: int, cluster: actors.Cluster) -> None:
    if psutil.virtual_memory().available < 14 * GIB:
        pytest.skip("it takes up to 12 GiB")
    eater = Eater.options(node=actors.nodes()[1].id).remote()
    assert actors.get(eater.ping.remote(), timeout=PATIENCE) == "here"
    with contextlib.ExitStack() as stack:
        if lane == "door":
            detour = stack.enter_context(Detour(eater, "door"))
            value = actors.get(detour.call("zeros", size), timeout=170)
        else:
            value = actors.get(eater.zeros.remote(size), timeout=170)
        assert (value.size, int(value[-1]), int(value[0])) == (size, 7, 0)
        del value
    assert actors.get(eater.ping.remote(), timeout=PATIENCE) == "here"


# -- what kill -9 leaves ----------------------------------------------------------------------------------------


BOTH_DIE = """
    import os, signal, time
    import numpy as np
    import actors
    from actors.home import arena_dir

    @actors.remote
    class Keeper:
        def keep(self, value):
            self.kept = [value, actors.put(np.ones(1 << 20))]
            return os.getpid()

    with actors.init(local_nodes=2) as cluster:
        here, node = actors.nodes()
        maker, other = (Keeper.options(node=one.id).remote() for one in (node, here))
        array = np.ones(1 << 20)
        pid, _ = actors.get([maker.keep.remote(array), other.keep.remote(array)], timeout=60)
        folder = arena_dir(cluster.process.folder)

        def owners():
            return {name.name.rpartition("-")[0] for name in folder.iterdir() if name.name.startswith("worker-")}

        assert len(owners()) == 2
        os.kill(node.pid, signal.SIGSTOP)  # so that it does not bury its actor
        os.kill(pid, signal.SIGKILL)
        os.kill(node.pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while len(owners()) > 1:
            assert time.monotonic() < deadline, owners()
            time.sleep(0.05)
        assert actors.get(other.keep.remote(array), timeout=60) > 0
        print("given back")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is in the run folder")
@pytest.mark.slow
def test_memory_of_a_node_and_its_actor_that_are_killed_at_once_is_given_back() -> None:
    assert succeed(BOTH_DIE)[-1] == "given back"
