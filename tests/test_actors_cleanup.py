"""Drivers of every kind, how they are interrupted, and that nothing is left of them however they end."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import suppress

import psutil
import pytest
from clusters import Counter, Latch, Program, eventually, slow, succeed

import actors
from actors.exceptions import ActorsError, NoClusterError

PATIENCE = 30.0

COUNTER = """
    import actors

    offset = 40

    @actors.remote
    class Counter:
        def __init__(self, start):
            self.count = start + offset

        def add(self, amount=1):
            self.count += amount
            return helper(self.count)

    def helper(number):
        return f"counted {number}"

    counter = Counter.remote(1)
    print(actors.get(counter.add.remote(), timeout=30))
"""


# -- kinds of drivers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["file", "command", "stdin"])
def test_a_program_needs_no_guard_no_file_and_no_init(how: str) -> None:
    assert succeed(COUNTER, how=how) == ["counted 42"]


def test_classes_typed_at_a_prompt_and_typed_again() -> None:
    with Program(
        """
        import actors
        @actors.remote
        class Typed:
            def answer(self):
                return "first"

        first = Typed.remote()
        print(actors.get(first.answer.remote()))
        @actors.remote
        class Typed:
            def answer(self):
                return "second"

        print(actors.get(Typed.remote().answer.remote()), actors.get(first.answer.remote()))
        exit()
        """,
        how="console",
    ) as program:
        assert program.ends() == 0, program.report()
        assert program.printed == ["first", "second first"], program.report()
        assert "Traceback" not in program.complaints, program.report()


def test_classes_of_code_that_has_no_source() -> None:
    assert succeed(
        """
        import actors
        names = {"__name__": "__main__", "actors": actors}
        exec("@actors.remote\\nclass Made:\\n    def answer(self):\\n        return 42", names)
        print(actors.get(names["Made"].remote().answer.remote(), timeout=30))
        """
    ) == ["42"]


def test_classes_of_a_module_beside_the_script() -> None:
    beside = {
        "shapes.py": """
            import actors
            from units import SIDE, BadUnitError

            class Base:
                def area(self):
                    return self.side * SIDE

            @actors.remote
            class Square(Base):
                def __init__(self, side):
                    self.side = side

                def fail(self):
                    raise BadUnitError(self.side)
            """,
        "units.py": """
            SIDE = 7

            class BadUnitError(Exception):
                pass
            """,
    }
    assert succeed(
        """
        import os
        os.chdir("/")  # what a worker finds in the current folder does not matter
        import actors, shapes, units
        square = shapes.Square.remote(6)
        print(actors.get(square.area.remote(), timeout=30))
        try:
            actors.get(square.fail.remote(), timeout=30)
        except units.BadUnitError as error:
            print("caught", error.args)
        """,
        beside=beside,
    ) == ["42", "caught (6,)"]


def test_what_actors_print_is_shown_with_who_said_it() -> None:
    with Program(
        """
        import sys
        import actors

        @actors.remote
        class Talker:
            def talk(self):
                print("to everybody")
                print("careful", file=sys.stderr)

        talker = Talker.remote()
        actors.get(talker.talk.remote(), timeout=30)
        import time
        time.sleep(60)
        """
    ) as program:
        eventually(lambda: any("to everybody" in line for line in program.printed), what=program.report())
        eventually(lambda: "careful" in program.complaints, what=program.report())
        assert "Talker" in next(line for line in program.printed if "to everybody" in line)


@pytest.mark.parametrize(
    ("ending", "status"), [("raise SystemExit(3)", 3), ("raise ValueError('as always')", 1), ("os._exit(9)", 9)]
)
def test_a_programs_own_exit_status_is_kept(ending: str, status: int) -> None:
    with Program(f"import os, actors\nactors.init()\n{ending}") as program:
        assert program.ends() == status, program.report()
        program.leaves_nothing()
        own = program.complaints  # of Python, and nothing of ours
        assert own == "" if status != 1 else own.startswith("Traceback") and own.endswith("\nValueError: as always")


def test_a_thread_that_outlives_the_main_one_gets_its_future() -> None:
    source = """
        import threading, time, actors

        @actors.remote
        class Sleeper:
            def sleep(self, seconds):
                time.sleep(seconds)
                return "slept"

        sleeper = Sleeper.remote()
        ref = sleeper.sleep.remote(0.5)
        def wait():
            threading.main_thread().join()
            print(ref.future().result(), actors.get(sleeper.sleep.remote(0)), flush=True)
        threading.Thread(target=wait).start()
    """
    with Program(source) as program:
        assert program.ends() == 0, program.report()
        assert program.printed == ["slept slept"], program.report()
        assert program.complaints == ""


# -- Ctrl-C -----------------------------------------------------------------------------------------------------

INTERRUPTED = """
    import asyncio, signal, time
    import actors

    @actors.remote
    class Slow:
        def sleep(self, seconds):
            time.sleep(seconds)
            return "slept"

        def stream(self):
            time.sleep(600)
            yield 1

        def ping(self):
            return "pong"

    async def gathered():
        await asyncio.gather(slow.sleep.remote(600), slow.sleep.remote(600))

    slow, other = Slow.remote(), Slow.remote()
    actors.get([slow.ping.remote(), other.ping.remote()])
    try:
        print("ready", flush=True)
        WAITING
    except KeyboardInterrupt:
        print("interrupted", time.time(), flush=True)
    print(actors.get(other.ping.remote(), timeout=5))
    actors.kill(slow)
    again = Slow.remote()
    print(actors.get(again.ping.remote(), timeout=5))
"""

WAYS = {
    "get": "actors.get(slow.sleep.remote(600))",
    "get of many": "actors.get([other.ping.remote(), slow.sleep.remote(600)], timeout=600)",
    "wait": "actors.wait([slow.sleep.remote(600)])",
    "a stream": "next(slow.stream.remote())",
    "gather": "asyncio.run(gathered())",
}


@pytest.mark.parametrize("way", ["get", "gather", *slow("get of many", "wait", "a stream")])
def test_ctrl_c_ends_the_wait_and_the_next_call_works(way: str) -> None:
    with Program(INTERRUPTED.replace("WAITING", WAYS[way])) as program:
        program.line("ready")
        time.sleep(0.2)  # most likely into the wait; before it, the outcome is the same
        sent = time.time()
        program.interrupt()
        assert float(program.line("interrupted")) - sent < 0.5
        assert program.ends() == 0, program.report()
        assert program.printed[-2:] == ["pong", "pong"]
        program.leaves_nothing()


STARTING = "import actors\nactors.init(local_nodes=3)\nimport time\ntime.sleep(600)"


@pytest.mark.parametrize("how", [signal.SIGINT, *slow(signal.SIGKILL)], ids=lambda s: s.name)
def test_a_driver_ended_while_its_cluster_starts_leaves_nothing(how: signal.Signals) -> None:
    with Program(STARTING) as program:
        eventually(lambda: len(program.processes()) > 1, what="a node is starting")
        program.process.send_signal(how)
        assert program.ends(within=15) in {1, 130, -how}, program.report()
        program.leaves_nothing()


# -- ends -------------------------------------------------------------------------------------------------------

BUSY = """
    import time
    import numpy as np
    import actors

    @actors.remote
    class Worker:
        def __init__(self):
            self.child = None

        def make_child(self):
            self.child = Worker.remote()
            return actors.get(self.child.ping.remote())

        def ping(self):
            return "pong"

        def take(self, array):
            return array.size

        def sleep(self):
            time.sleep(600)

    actors.init(local_nodes=2)
    workers = [Worker.options(node=node.name).remote() for node in actors.nodes()]
    actors.get([worker.make_child.remote() for worker in workers])
    actors.get([worker.take.remote(np.zeros(3_000_000)) for worker in workers])
    refs = [worker.sleep.remote() for worker in workers]
    print("busy", flush=True)
    actors.get(refs)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, *slow(signal.SIGTERM, signal.SIGINT)], ids=lambda s: s.name)
def test_a_driver_that_is_ended_leaves_nothing(how: signal.Signals) -> None:
    with Program(BUSY) as program:
        program.line("busy")
        assert len(program.processes()) >= 7  # itself, two nodes, four actors
        program.process.send_signal(how)
        program.ends(within=15)
        program.leaves_nothing()


@pytest.mark.slow
def test_a_driver_killed_while_everything_of_it_is_stopped_leaves_nothing() -> None:
    with Program(BUSY) as program:
        program.line("busy")
        stopped = [process for process in program.processes() if process.pid != program.process.pid]
        for process in stopped:
            process.suspend()
        program.process.kill()
        program.ends()
        for process in stopped:
            with suppress(psutil.NoSuchProcess):  # those resumed before it may have ended it
                process.resume()
        program.leaves_nothing()


def test_a_driver_that_ends_with_calls_open_ends_at_once() -> None:
    with Program(BUSY.replace("actors.get(refs)\n", "")) as program:
        program.line("busy")
        begun = time.monotonic()
        assert program.ends() == 0, program.report()
        assert time.monotonic() - begun < 5
        program.leaves_nothing()
        assert program.complaints == ""


# -- shutdown and init ------------------------------------------------------------------------------------------


def test_shutdown_and_init_again() -> None:
    actors.shutdown()
    for local_nodes in (1, 2):
        with actors.init(local_nodes=local_nodes) as left:
            assert actors.is_initialized()
            assert len(actors.nodes()) == local_nodes
            old = Counter.options(name="same").remote()
            assert actors.get(old.add.remote(), timeout=PATIENCE) == 1
        assert not actors.is_initialized()
        with pytest.raises(NoClusterError, match="left by shutdown"), left:
            pass
        with pytest.raises(ActorsError):
            actors.get(old.add.remote(), timeout=PATIENCE)
        actors.shutdown()


def test_shutdown_answers_what_waits() -> None:
    actors.init()
    try:
        latch = Latch.remote()
        ref = latch.wait.remote()
        eventually(lambda: actors.get(latch.waiting.remote(), timeout=PATIENCE) == 1)
        outcomes: list[BaseException] = []

        def wait() -> None:
            try:
                actors.get(ref)
            except Exception as error:
                outcomes.append(error)

        waiter = threading.Thread(target=wait)
        waiter.start()
    finally:
        actors.shutdown()
    waiter.join(10)
    assert not waiter.is_alive()
    assert isinstance(outcomes[0], ActorsError)


def test_without_a_cluster() -> None:
    actors.shutdown()
    assert not actors.is_initialized()
    for call in (actors.nodes, lambda: actors.get_actor("x"), actors.list_named_actors):
        with pytest.raises(NoClusterError, match="init"):
            call()


def test_the_first_remote_makes_a_cluster() -> None:
    try:
        assert actors.get(Counter.remote().add.remote(), timeout=PATIENCE) == 1
        assert actors.is_initialized()
        assert len(actors.nodes()) == 1
    finally:
        actors.shutdown()


def test_a_cluster_leaves_no_file_open_and_no_thread() -> None:
    def use() -> tuple[int, int]:
        with actors.init(local_nodes=2):
            actors.get(Counter.remote().add.remote(), timeout=PATIENCE)
        return psutil.Process().num_fds(), threading.active_count()

    first, threads = use()
    eventually(lambda: threading.active_count() <= threads)
    again = use()
    assert again[0] <= first + 2, "files"
    assert again[1] <= threads + 1, "threads"


def test_two_drivers_side_by_side_do_not_see_each_other() -> None:
    code = """
        import time
        import actors
        actors.init(local_nodes=2)

        @actors.remote
        class Here:
            def where(self):
                return actors.get_runtime_context().get_node_id()

        here = Here.options(name="here").remote()
        assert actors.get(here.where.remote()) in {node.id for node in actors.nodes()}
        print("up", len(actors.nodes()), flush=True)
        time.sleep(600)
        """
    with Program(code) as one, Program(code) as other:
        assert one.line("up") == "2"
        assert other.line("up") == "2"
        one.process.kill()
        one.ends()
        one.leaves_nothing()
        assert len(other.processes()) >= 4
