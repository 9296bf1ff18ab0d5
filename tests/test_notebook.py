"""Actors in a notebook: the quickstart as it is in the repository, and what a person at a real kernel does."""

from __future__ import annotations

import json
import os
import queue
import secrets
import shutil
import signal
import tempfile
import textwrap
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from clusters import eventually

pytest.importorskip("ipykernel")
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

from jupyter_client.manager import AsyncKernelManager, KernelManager  # noqa: E402

from actors.exceptions import ModelError  # noqa: E402
from actors.models import demo_model  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

QUICKSTART = Path(__file__).parents[1] / "notebooks" / "quickstart.ipynb"
PATIENCE = 30.0  # seconds for anything that must come, on a machine that is busy with other things
PROMPT = 0.5  # seconds from an interrupt to the cell's reply
LASTS = "threading.Timer(0.3, print, ['waiting'], {'flush': True}).start()"  # the first moments are waited otherwise
TRIES = 4  # a busy machine may be slow once
RUNS = ("first run", "second run")


@pytest.fixture(scope="module", autouse=True)
def _jupyter_of_its_own() -> Iterator[None]:
    """The user's own kernels, profiles and settings stay out of it."""
    # Not under TMPDIR: macOS gives a long one, and a socket's path has room for 103 bytes.
    folder = Path(tempfile.mkdtemp(prefix="jupyter-", dir="/tmp")).resolve()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
            patch.setenv(name, str(folder / name.lower()))
        patch.setenv("JUPYTER_PLATFORM_DIRS", "1")
        patch.delenv("JUPYTER_PATH", raising=False)
        yield
    shutil.rmtree(folder, ignore_errors=True)


def on_sockets_of_its_own() -> dict[str, str]:
    """Returns how a kernel manager shall talk to its kernel: nobody else can take these between choice and use."""
    return {"transport": "ipc", "ip": f"{os.environ['JUPYTER_RUNTIME_DIR']}-{secrets.token_hex(4)}"}


def environment(**more: str) -> dict[str, str]:
    """Returns a kernel's environment. One that takes itself for a test does not show what is written to fd 1 and 2."""
    return {**{name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}, **more}


def offspring(pid: int) -> list[psutil.Process]:
    """Returns what a process has started, however deep, and is still there."""
    return psutil.Process(pid).children(recursive=True)


def all_ended(processes: list[psutil.Process]) -> bool:
    """Whether none runs. One that has ended and lost its parent is for the system to bury, which may not hurry."""
    return all(not each.is_running() or _is_zombie(each) for each in processes)


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def pid_of(manager: Any) -> int:
    """Returns the process id of a manager's kernel."""
    pid: int = manager.provisioner.pid
    return pid


# -- the quickstart ---------------------------------------------------------------------------------------------


def test_the_quickstart_is_kept_without_outputs() -> None:
    notebook = nbformat.read(QUICKSTART, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}  # no minor of whoever ran it last
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.id for cell in code if cell.outputs or cell.execution_count is not None] == []
    assert [cell.id for cell in notebook.cells if cell.metadata or cell.get("attachments")] == []
    text = QUICKSTART.read_text("utf-8")
    assert text == json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n"  # as Jupyter itself writes it


class Told:
    """What the quickstart showed in one run: the text of each cell, its errors' text, and what it left running."""

    def __init__(self) -> None:
        self.text: dict[str, str] = {}
        self.complaints: dict[str, str] = {}
        self.left: list[psutil.Process] = []

    def take(self, cell: Any) -> None:
        """Notes a cell that has run."""
        parts: list[str] = []
        complaints: list[str] = []
        for output in cell.outputs:
            if output.output_type == "stream":
                (complaints if output.name == "stderr" else parts).append(output.text)
            else:
                parts.append(output.data["text/plain"])
        self.text[cell.id] = "".join(parts).strip()
        if complaints:
            self.complaints[cell.id] = "".join(complaints)


@pytest.fixture(scope="module")
def model() -> str:
    """The demo's model, from the user's own cache, so that a machine fetches it once and not for each run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ACTORS_HOME", raising=False)
        try:
            return str(demo_model())
        except ModelError as error:
            pytest.skip(str(error))


@pytest.fixture(scope="module")
def told(model: str) -> dict[str, Told]:
    """The quickstart, run twice from top to bottom in one kernel, as a person does who changes something."""
    pytest.importorskip("mlx_lm")
    notebook = nbformat.read(QUICKSTART, as_version=4)
    manager = AsyncKernelManager(kernel_name="python3", **on_sockets_of_its_own())
    client = nbclient.NotebookClient(notebook, km=manager, timeout=3 * PATIENCE)
    runs = {name: Told() for name in RUNS}
    settings = {"env": environment(ACTORS_DEMO_MODEL=model), "cwd": str(QUICKSTART.parent), "cleanup_kc": True}
    with client.setup_kernel(**settings):
        for run in runs.values():
            for index, cell in enumerate(notebook.cells):
                client.execute_cell(cell, index)
                if cell.cell_type == "code":
                    run.take(cell)
            run.left = offspring(pid_of(manager))
    return runs


@pytest.mark.parametrize("run", RUNS)
class TestQuickstart:
    def test_three_nodes_find_each_other(self, told: dict[str, Told], run: str) -> None:
        lines = told[run].text["list-nodes"].splitlines()
        assert len(lines) == len({line.partition(" at ")[0] for line in lines}) == 3
        assert all("found by zeroconf" in line for line in lines)

    def test_counters_count(self, told: dict[str, Told], run: str) -> None:
        text = told[run].text
        assert text["get"].endswith("[1, 11, 21]")  # how far it is stands before it where it took more than a second
        assert (text["await"], text["tell"]) == ("42", "121")

    def test_the_work_is_shared_out(self, told: dict[str, Told], run: str) -> None:
        # Beside it may stand how far the waiting was, where that took longer than a second.
        assert "1652 + 863 + 730 = 3245 primes below 30,000" in told[run].text["map"]

    def test_all_get_the_sum(self, told: dict[str, Told], run: str) -> None:
        assert repr([((1_000_000,), 6.0, 6.0)] * 3) in told[run].text["allreduce"]

    def test_a_stream_comes_in_order(self, told: dict[str, Told], run: str) -> None:
        assert told[run].text["stream"].split() == ["0", "1", "1", "2", "3", "5", "8", "13", "21", "34", "55", "89"]

    def test_the_error_says_where_it_was_raised(self, told: dict[str, Told], run: str) -> None:
        message, _, mean = told[run].text["error"].rpartition("\n")
        assert message.startswith("ZeroDivisionError: division by zero")
        assert "Mathematician" in message
        assert ", in mean" in message
        assert mean == "3.0"

    def test_the_model_is_on_all_nodes_and_answers(self, told: dict[str, Told], run: str) -> None:
        stages = told[run].text["load"].splitlines()[-3:]
        assert [line.partition(": ")[2].partition(",")[0] for line in stages] == [
            "layers 0 to 11",
            "layers 12 to 24",
            "layers 25 to 29",
        ]
        assert "Paris" in told[run].text["chat"]

    def test_nothing_is_complained_of(self, told: dict[str, Told], run: str) -> None:
        assert told[run].complaints == {}

    def test_no_process_is_left_after_the_last_cell(self, told: dict[str, Told], run: str) -> None:
        assert told[run].left == []


# -- at a kernel ------------------------------------------------------------------------------------------------


class Cell:
    """Code that was sent to a kernel, and what it has shown so far."""

    def __init__(self, kernel: Kernel, code: str) -> None:
        self._kernel = kernel
        self._client = kernel.client
        self._idle = False
        self._shown: list[tuple[str, str]] = []
        # Without stop_on_error=False, a kernel refuses what comes just after a cell that failed.
        self.id = self._client.execute(textwrap.dedent(code), allow_stdin=False, stop_on_error=False)

    def text(self, stream: str = "stdout") -> str:
        """What it has shown on a stream, or as its ``"result"``."""
        return "".join(text for kind, text in self._shown if kind == stream)

    def shows(self, text: str, stream: str = "stdout") -> None:
        """Waits until it has shown a text. What the kernel shows as another cell's does not count."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.text(stream):
            self._read(deadline, f"{text!r} on {stream}")

    def _read(self, deadline: float, what: str) -> None:
        try:
            message = self._client.get_iopub_msg(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise AssertionError(f"not within {PATIENCE:g} s: {what}; the cell showed {self._shown}") from None
        content = message["content"]
        if message["parent_header"].get("msg_id") != self.id:
            return
        if message["msg_type"] == "stream":
            self._shown.append((content["name"], content["text"]))
        elif message["msg_type"] == "execute_result":
            self._shown.append(("result", content["data"]["text/plain"]))
        elif message["msg_type"] == "status":
            self._idle = content["execution_state"] == "idle"

    def reply(self) -> dict[str, Any]:
        """Waits until it has ended and returns the kernel's reply to it."""
        while True:
            message = self._client.get_shell_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") == self.id:
                reply: dict[str, Any] = message["content"]
                return reply

    def succeeds(self) -> str:
        """Waits until it has ended well and shown everything; returns its result."""
        reply = self.reply()
        assert reply["status"] == "ok", "\n".join(reply.get("traceback", [str(reply)]))
        deadline = time.monotonic() + PATIENCE
        while not self._idle:
            self._read(deadline, "its end")
        return self.text("result")


class Kernel:
    """A real kernel, used as a front end uses it."""

    def __init__(self) -> None:
        self._manager = KernelManager(kernel_name="python3", **on_sockets_of_its_own())
        self._manager.start_kernel(env=environment())
        self.client = self._manager.client()
        self.client.start_channels()
        try:
            self.client.wait_for_ready(timeout=PATIENCE)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return pid_of(self._manager)

    def start(self, code: str) -> Cell:
        """Begins a cell."""
        return Cell(self, code)

    def run(self, code: str) -> str:
        """Runs a cell, which must succeed, to its end; returns its result."""
        return self.start(code).succeeds()

    def interrupt(self) -> None:
        """The stop button."""
        self._manager.interrupt_kernel()

    def restart(self) -> None:
        """The restart button."""
        self._manager.restart_kernel()
        self.client.wait_for_ready(timeout=PATIENCE)

    def kill(self) -> None:
        """What the system does where memory runs out."""
        os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Ends it."""
        self.client.stop_channels()
        self._manager.shutdown_kernel(now=True)


CAST = """
    import asyncio, os, threading, actors

    cluster = actors.init(local_nodes=1)

    @actors.remote
    class Sleeper:
        async def sleep(self):
            await asyncio.Event().wait()

        async def silence(self):
            await asyncio.Event().wait()
            yield

        async def say(self, text):
            print(text)

        async def ping(self):
            return "pong"

    sleeper = Sleeper.remote()
    actors.get(sleeper.ping.remote())
"""


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    """A kernel with one node and one actor; its first traceback, which loads the highlighter, is behind it."""
    kernel = Kernel()
    try:
        kernel.run(CAST)
        assert kernel.start("1 / 0").reply()["status"] == "error"
        yield kernel
        kernel.run("actors.shutdown()")
        assert offspring(kernel.pid) == []
    finally:
        kernel.close()


@pytest.mark.parametrize(
    ("wait", "ename"),
    [
        ("actors.get(sleeper.sleep.remote())", "KeyboardInterrupt"),
        ("actors.get([sleeper.ping.remote(), sleeper.sleep.remote()])", "KeyboardInterrupt"),
        ("actors.wait([sleeper.sleep.remote()])", "KeyboardInterrupt"),
        ("for ref in sleeper.silence.remote(): pass", "KeyboardInterrupt"),
        ("await sleeper.sleep.remote()", "CancelledError"),
        ("await asyncio.gather(sleeper.ping.remote(), sleeper.sleep.remote())", "CancelledError"),
        ("async for ref in sleeper.silence.remote(): pass", "CancelledError"),
    ],
)
def test_an_interrupt_ends_a_wait_at_once_and_the_next_cell_works(kernel: Kernel, wait: str, ename: str) -> None:
    took: list[float] = []
    while len(took) < TRIES and min(took, default=PROMPT) >= PROMPT:
        cell = kernel.start(f"{LASTS}\n{wait}")
        cell.shows("waiting")
        began = time.monotonic()
        kernel.interrupt()
        reply = cell.reply()
        took.append(time.monotonic() - began)
        assert (reply["status"], reply["ename"]) == ("error", ename)
    assert min(took) < PROMPT, took
    assert kernel.run("actors.get(sleeper.ping.remote())") == "'pong'"
    assert kernel.run("await sleeper.ping.remote()") == "'pong'"


def test_a_class_defined_again_is_the_new_one_for_new_actors(kernel: Kernel) -> None:
    code = """
        @actors.remote
        class Fickle:
            def version(self):
                return {version}

        {name} = Fickle.remote()
        await {name}.version.remote()
    """
    assert kernel.run(code.format(version=1, name="older")) == "1"
    assert kernel.run(code.format(version=2, name="newer")) == "2"
    assert kernel.run("actors.get([older.version.remote(), newer.version.remote()])") == "[1, 2]"


def test_what_a_cell_ends_with_is_kept_until_it_is_deleted_as_the_page_says(kernel: Kernel) -> None:
    kernel.run("""
        from actors import runtime

        def is_kept(name):
            return name in runtime.joined().keeper._values
    """)
    made = "ref = actors.put(bytes(100))\nname = ref._value.id\n"
    kernel.run(f"{made}ref;")  # which IPython does not keep
    kernel.run("del ref")
    eventually(lambda: kernel.run("is_kept(name)") == "False", PATIENCE)
    assert "ObjectRef" in kernel.run(f"{made}ref")
    assert kernel.run("is_kept(name)") == "True"
    kernel.run("%xdel ref")
    eventually(lambda: kernel.run("is_kept(name)") == "False", PATIENCE)


def test_what_an_actor_prints_is_shown_in_the_cell_that_runs(kernel: Kernel) -> None:
    for text in ("one for the money", "two for the show"):  # the second cell's is not shown in the first
        cell = kernel.start(f"sleeper.say.remote({text!r})\nawait sleeper.sleep.remote()")
        try:
            cell.shows(text)
            assert "Sleeper" in cell.text()
        finally:
            kernel.interrupt()
            cell.reply()


def test_a_shell_command_prints_no_warning_of_grpc(kernel: Kernel) -> None:
    # Written to the descriptor, as gRPC does: what came before it is shown before it.
    cell = kernel.start("!true\nos.write(2, b'that was it')")
    cell.shows("that was it", "stderr")
    cell.succeeds()
    assert cell.text("stderr") == "that was it"
    assert kernel.run("await sleeper.ping.remote()") == "'pong'"


def test_a_kernel_that_is_restarted_or_killed_leaves_no_process() -> None:
    cluster = """
        import actors

        cluster = actors.init(local_nodes=2)

        @actors.remote
        class Worker:
            def ping(self):
                return "pong"

        workers = [Worker.options(node=node.name).remote() for node in actors.nodes()]
        actors.get([worker.ping.remote() for worker in workers])
    """
    kernel = Kernel()
    try:
        for end in (kernel.restart, kernel.kill):
            assert kernel.run(cluster) == "['pong', 'pong']"
            processes = offspring(kernel.pid)
            assert len(processes) >= 4  # two nodes, two actors, and spare workers
            end()
            eventually(partial(all_ended, processes), 10, "the end of them all")
    finally:
        kernel.close()
