"""What a program is told of a call that it has waited for for long: where that stands."""

from __future__ import annotations

import re

import pytest
from clusters import Program, succeed

PROGRAM = """
    import asyncio, logging, os, sys, threading, time
    os.environ["ACTORS_SLOW_SECONDS"] = "1.5"
    import actors

    told = threading.Event()

    class Heard:
        def write(self, text):
            sys.__stderr__.write(text)
            if "has not answered" in text:
                told.set()
        def flush(self):
            sys.__stderr__.flush()

    sys.stderr = Heard()
    actors.init("local", local_nodes=2)
    here, there = actors.nodes()

    @actors.remote
    class Sleeper:
        def until(self, path):
            while not os.path.exists(path):
                time.sleep(0.01)
        def nothing(self, *values):
            return None

    @actors.remote
    class Asker:
        def ask(self, sleeper, path):
            return actors.get(sleeper.until.remote(path))
        def nothing(self):
            return None

    @actors.remote
    class Coroutine:
        async def until(self, path):
            while not os.path.exists(path):
                await asyncio.sleep(0.01)
        def nothing(self):
            return None

    def once_told(name, wait):
        # The call that is waited for ends once something was said of it.
        told.clear()
        path = os.path.abspath(name)
        def release():
            told.wait(30)
            open(path, "w").close()
        threading.Thread(target=release, daemon=True).start()
        print(name, flush=True)
        print(name, file=sys.__stderr__, flush=True)
        wait(path)
        assert told.is_set(), "nothing was said"

    sleeper = Sleeper.options(name="sleeper", node=there.name).remote()
    asker, coroutine, other = Asker.options(node=here.name).remote(), Coroutine.remote(), Sleeper.remote()
    actors.get([sleeper.nothing.remote(), asker.nothing.remote(), coroutine.nothing.remote(), other.nothing.remote()])
    once_told("running", lambda path: actors.get(sleeper.until.remote(path)))
    once_told("queued", lambda path: (sleeper.until.remote(path), actors.get(sleeper.nothing.remote())))
    once_told("nested", lambda path: actors.get(asker.ask.remote(sleeper, path)))
    once_told("coroutine", lambda path: actors.get([coroutine.until.remote(path)]))

    def by_argument(path):
        actors.get(other.nothing.remote(coroutine.until.remote(path)))
    once_told("argument", by_argument)

    async def awaits(path):
        await other.until.remote(path)
    once_told("awaited", lambda path: asyncio.run(awaits(path)))

    large = Sleeper.options(num_cpus=1000).remote()
    def no_room(path):
        threading.Thread(target=lambda: (told.wait(30), actors.kill(large)), daemon=True).start()
        try:
            actors.get(large.nothing.remote())
        except actors.exceptions.ActorDiedError:
            pass
    once_told("no-room", no_room)

    heard = []
    class Handler(logging.Handler):
        def emit(self, record):
            heard.append(record.getMessage())
            told.set()
    logging.getLogger("actors").addHandler(Handler())
    once_told("logged", lambda path: actors.get(Sleeper.remote().until.remote(path)))
    assert len(heard) == 1 and "until has not answered" in heard[0], heard
    again = os.path.abspath("again")
    threading.Timer(3, lambda: open(again, "w").close()).start()
    actors.get(sleeper.until.remote(again))
    assert len(heard) == 1, "once a method is enough"
    print("over")
"""

SAID = {
    "running": r"sleeper\(\S+\)\.until has not answered for 1\.5 s: it has run for \S+ s on node \S+, process \d+, "
    r'and is busy at File ".*program\.py", line \d+, in until',
    "queued": r"sleeper\(\S+\)\.nothing .*: it waits in line on node .*, with 1 before it: sleeper\(\S+\)\.until, "
    r'which has run for \S+ s, and is busy at File ".*program\.py", line \d+, in until',
    "nested": r"Asker\(\S+\)\.ask .*: it has run for .*, and waits for sleeper\(\S+\)\.until at File .*, in ask",
    "coroutine": r"Coroutine\(\S+\)\.until .* and is busy at File .*, in until",
    "argument": r"Sleeper\(\S+\)\.nothing .*: it waits for 1 of its arguments, which are values of calls that go on",
    "awaited": r"Sleeper\(\S+\)\.until .*: it has run for ",
    "no-room": r"Sleeper\(\S+\)\.nothing .*: its actor waits for room: it needs 1000 CPUs, but ",
}


@pytest.mark.slow
def test_it_is_told_where_a_call_stands_that_it_has_waited_for_for_long() -> None:
    with Program(PROGRAM) as program:
        assert program.ends() == 0, program.report()
        said = re.split(rf"^({'|'.join([*SAID, 'logged'])})$", program.complaints, flags=re.MULTILINE)
    of = dict(zip(said[1::2], said[2::2], strict=True))
    for name, words in SAID.items():
        lines = [line for line in of[name].splitlines() if line.startswith("actors: ")]
        assert len(lines) == 1, (name, of[name])
        assert re.match(f"actors: {words}", lines[0]), (name, lines[0])
    assert "actors: " not in of["logged"], "where a program logs, it is logged"


def test_nothing_is_said_where_that_is_not_wanted() -> None:
    lines = succeed("""
        import os
        from actors import overdue
        assert overdue.patience() == 30.0
        for given, seconds in (("0", 0.0), ("-1", 0.0), ("2.5", 2.5), ("soon", 30.0)):
            os.environ["ACTORS_SLOW_SECONDS"] = given
            assert overdue.patience() == seconds, given
        print("right")
    """)
    assert lines == ["right"]
