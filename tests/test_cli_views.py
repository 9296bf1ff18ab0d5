"""The commands that look at a running cluster: they find those of programs, and tell the same truth as they do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from clusters import Program, eventually
from devices import Device

from actors.cli.table import table
from actors.cli.table import use_color as takes_color

PROGRAM = """
    import time
    import numpy as np
    import actors
    import actors.collective as col

    actors.init("local", local_nodes=2)

    @actors.remote
    class Counter:
        def __init__(self):
            self.n = 0
        def add(self, k):
            self.n += k
            return self.n
        def sleep(self, seconds):
            print("good night", flush=True)
            time.sleep(seconds)
        def grind(self):
            print("grinding", flush=True)
            # One call into C code that lets no other thread in.
            return sum(range(10**13))
        def mean(self):
            return float(col.allreduce(np.ones(3), "mean").sum())

    @actors.remote
    class Late:
        pass

    @actors.remote
    class Asker:
        def ask(self, other):
            return actors.get(other.sleep.remote(600))

    counter = Counter.options(name="counter").remote()
    spare = Counter.options(name="spare").remote()
    light = Counter.options(name="light", isolation="thread").remote()
    grinder = Counter.options(name="grinder").remote()
    asker = Asker.remote()
    actors.get([counter.add.remote(i) for i in range(10)] + [light.add.remote(1), spare.add.remote(1)])
    group = Counter.options().group(2)
    actors.get(group.mean.remote())
    late = Late.options(num_cpus=1000).remote()
    refs = [asker.ask.remote(counter), grinder.grind.remote()]
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def program():
    with Program(PROGRAM) as running:
        running.line("ready")
        yield running


def run(program, *arguments, **more):
    environment = {**os.environ, "ACTORS_HOME": str(program.home), **more}
    return subprocess.run(
        [sys.executable, "-c", "from actors.cli import main; main()", *arguments],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def listed(program, *arguments):
    done = run(program, "list", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    return json.loads(done.stdout)


def by_name(program, name):
    return next(row for row in listed(program, "actors") if row["name"] == name)


def test_a_stack_of_one_whose_interpreter_is_busy_comes_by_a_signal(program):
    pid = by_name(program, "grinder")["pid"]
    shown = json.loads(run(program, "stack", "grinder", "--json").stdout)
    assert shown["gil_held"]
    assert any("in grind" in line for part in shown["stacks"] for line in part["frames"])
    assert by_name(program, "grinder")["pid"] == pid, "it went on"
    assert run(program, "kill", "grinder").returncode == 0


def test_actors_are_listed_with_where_they_are_and_what_waits(program):
    eventually(lambda: by_name(program, "counter")["pending"] == 1)
    rows = {row["name"] or row["class"]: row for row in listed(program, "actors")}
    assert rows.keys() >= {"counter", "spare", "light", "Asker", "Counter"}
    assert rows.pop("grinder")["state"] == "DEAD"
    late = rows.pop("Late")
    assert (late["state"], late["node"], late["pid"]) == ("PENDING_CREATION", None, None)
    for row in rows.values():
        assert row.keys() >= {"id", "name", "class", "node", "pid", "state", "pending"}
        assert (row["state"], isinstance(row["pid"], int)) == ("ALIVE", True), row
    assert {row["node"] for row in listed(program, "actors") if row["class"] != "Late"} == {
        row["name"] for row in listed(program, "nodes")
    }


def test_calls_say_who_waits_for_whom(program):
    (asks,) = [row for row in listed(program, "calls") if row["class"] == "Asker"]
    assert (asks["method"], asks["state"], asks["caller"]) == ("ask", "RUNNING", f"driver {program.process.pid}")
    assert asks["waits_for"][0].endswith(".sleep")
    (sleeps,) = [row for row in listed(program, "calls") if row["method"] == "sleep"]
    assert sleeps["caller"].startswith("Asker(actor-")
    slow = listed(program, "calls", "--slow", "--over", "0.0001")
    assert {"ask", "sleep"} <= {row["method"] for row in slow}


def test_groups_and_their_collectives_are_listed(program):
    (group,) = listed(program, "groups")
    assert (group["size"], group["state"], [m["rank"] for m in sorted(group["members"], key=lambda m: m["rank"])]) == (
        2, "OPEN", [0, 1],
    )  # fmt: skip
    assert group["collectives"]["allreduce"]["count"] == 1


def test_a_stack_shows_code_calls_and_who_is_kept_waiting(program):
    done = run(program, "stack", "counter")
    assert done.returncode == 0, done.stderr
    assert "sleep runs for" in done.stdout
    assert "in sleep" in done.stdout
    assert "Asker(" in done.stdout
    assert "has waited for it for" in done.stdout


def test_logs_are_filtered_and_followed(program):
    def lines(*arguments):
        done = run(program, "logs", "--json", *arguments)
        assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stderr
        return json.loads(done.stdout)

    assert [line["text"] for line in lines("counter")] == ["good night"]
    assert {line["text"] for line in lines("--class", "Counter", "--grep", "^g")} == {"good night", "grinding"}
    assert lines("--stream", "stderr", "--grep", "^good") == []
    plain = run(program, "logs", "counter").stdout
    assert plain.endswith("good night\n")
    assert "node=" in plain
    nowhere = run(program, "logs", "--node", "nowhere")
    assert (nowhere.returncode, ", and not 'nowhere'" in nowhere.stderr) == (1, True)
    wrong = run(program, "logs", "--grep", "(")
    assert (wrong.returncode, "no regular expression" in wrong.stderr) == (2, True)


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_following_ends_with_ctrl_c_and_status_130(program, more):
    follower = subprocess.Popen(
        [sys.executable, "-c", "from actors.cli import main; main()", "logs", "-f", "counter", *more],
        env={**os.environ, "ACTORS_HOME": str(program.home)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert follower.stdout is not None
    line = follower.stdout.readline()
    assert line.endswith("good night\n") if not more else json.loads(line)["text"] == "good night"
    follower.send_signal(signal.SIGINT)
    _, complaint = follower.communicate(timeout=30)
    assert (follower.returncode, complaint) == (130, "\nInterrupted.\n")


def test_following_one_that_is_not_there_says_that_it_waits(program):
    follower = subprocess.Popen(
        [sys.executable, "-c", "from actors.cli import main; main()", "logs", "-f", "countr"],
        env={**os.environ, "ACTORS_HOME": str(program.home)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert follower.stderr is not None
    said = follower.stderr.readline()
    follower.send_signal(signal.SIGINT)
    follower.communicate(timeout=30)
    assert "no actor is called 'countr': did you mean 'counter'?" in said
    assert "Waiting for what comes; Ctrl-C ends it." in said


def test_a_trace_is_written_that_perfetto_opens(program, tmp_path):
    path = tmp_path / "trace.json"
    done = run(program, "timeline", str(path))
    assert done.returncode == 0, done.stderr
    events = json.loads(path.read_text())["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X", "s", "f"}
    assert sum(event["name"] == "Counter.add" for event in events) >= 12
    assert run(program, "timeline", str(tmp_path)).returncode == 2


def test_kill_ends_an_actor_and_says_so_when_it_has(program):
    done = run(program, "kill", "spare")
    assert (done.returncode, done.stdout) == (0, "Counter spare has ended.\n")
    row = by_name(program, "spare")
    assert (row["state"], "killed" in row["reason"]) == ("DEAD", True)
    again = run(program, "kill", "spare")
    assert (again.returncode, "has ended already" in again.stderr) == (1, True)
    assert run(program, "kill", "light").returncode == 0
    eventually(lambda: by_name(program, "light")["state"] == "DEAD")
    wrong = run(program, "kill", "countr")
    assert (wrong.returncode, "did you mean 'counter'?" in wrong.stderr) == (1, True)


def test_status_shows_clusters_of_programs(program):
    done = run(program, "status")
    assert done.returncode == 0
    assert f"Program {program.process.pid} (program.py) has a cluster for itself: 2 nodes" in done.stdout
    found = json.loads(run(program, "status", "--json").stdout)
    assert [one["pid"] for one in found["programs"]] == [program.process.pid]
    # What has no place is seen, and why.
    assert "Not there yet: Late actor-" in done.stdout
    (late,) = found["pending"]
    assert (late["name"], late["class"]) == (None, "Late")
    assert late["why"].startswith("it needs 1000 CPUs, but ")


def test_status_is_quick_for_it_talks_to_nodes_without_the_runtime(program):
    code = "import sys; from actors.cli import main\ntry: main(['status'])\nexcept SystemExit: print(*sys.modules)"
    environment = {**os.environ, "ACTORS_HOME": str(program.home)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert "has a cluster for itself" in done.stdout
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "actors.visit" in loaded
    # That program's device has no node and was never paired, so that it needs its own key for its id.
    assert not loaded & {"actors.process", "actors.failure", "importlib.metadata", "grpc", "numpy", "psutil", "rich"}


def test_logs_of_nobody_say_so(program):
    wrong = run(program, "logs", "countr")
    assert (wrong.returncode, "did you mean 'counter'?" in wrong.stderr) == (1, True)
    assert wrong.stdout == run(program, "logs", "countr", "--json").stdout == ""
    empty = run(program, "logs", "counter", "--grep", "never printed", "--json")
    assert (empty.returncode, empty.stdout, empty.stderr) == (0, "[]\n", "Nothing like that was printed.\n")
    silent = run(program, "logs", "counter", "--grep", "never printed")
    assert (silent.returncode, silent.stdout, silent.stderr) == (0, "", "Nothing like that was printed.\n")


@pytest.mark.slow
def test_status_tells_of_a_node_that_has_died():
    code = """
        import os, signal, time
        import actors
        actors.init("local", local_nodes=2)
        second = actors.nodes()[1]
        os.kill(second.pid, signal.SIGKILL)
        print("killed", second.name, flush=True)
        time.sleep(600)
    """
    with Program(code) as program:
        name = program.line("killed ")
        eventually(lambda: f"  {name} does not answer: " in run(program, "status").stdout)


def test_colours_are_given_where_they_are_asked_for_and_nowhere_else(program):
    assert "\x1b" not in run(program, "list", "actors").stdout
    assert "\x1b[32m" in run(program, "list", "actors", FORCE_COLOR="1", NO_COLOR="").stdout
    assert "\x1b" not in run(program, "list", "actors", FORCE_COLOR="1", NO_COLOR="1").stdout
    narrow = run(program, "list", "actors", COLUMNS="40").stdout
    assert max(map(len, narrow.splitlines())) <= 40
    assert by_name(program, "counter")["id"] in narrow, "what one needs for the next command is whole"


def test_a_shell_completes_commands_words_and_actors(program):
    def completed(*words):
        return run(
            program,
            _ACTORS_COMPLETE="bash_complete",
            COMP_WORDS=" ".join(["actors", *words]),
            COMP_CWORD=str(len(words)),
        ).stdout

    assert "plain,stack" in completed("sta")
    assert "plain,groups" in completed("list", "gr")
    assert "plain,counter" in completed("stack", "co")


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "actors"),
        ("list", "nodes"),
        ("list", "calls"),
        ("logs",),
        ("kill", "x"),
        ("stack", "x"),
        ("timeline",),
        ("drain", "x"),
    ],
)
def test_where_nothing_runs_the_status_is_3_and_says_what_to_do(tmp_path, arguments):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    done = subprocess.run(
        [sys.executable, "-c", "from actors.cli import main; main()", *arguments],
        env={**os.environ, "ACTORS_HOME": str(home)}, cwd=tmp_path, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (3, "")
    assert "actors start" in done.stderr
    assert ("no node runs on this device: `actors start` starts one" in done.stderr) == (arguments[0] == "drain")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "actros"), "Did you mean 'actors'?"),
        (("list",), "Missing argument"),
        (("list", "nodes", "--slow"), "--slow is for `actors list calls`"),
        (("list", "calls", "--state", "ALIVE"), "--state is for `actors list actors`"),
        (("logs", "--stream", "stdou"), "Did you mean 'stdout'?"),
    ],
)
def test_wrong_use_is_status_2(program, arguments, said):
    done = run(program, *arguments)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_a_table_is_cut_to_the_terminal_at_its_widest_columns(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert not takes_color()
    shown = table(("A", "B"), [("x" * 30, 7), ("y", None)], 20)
    assert shown.splitlines() == ["A                  B", f"{'x' * 16}…  7", "y                  -"]


def test_where_a_table_would_lose_its_columns_each_row_is_a_block(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    shown = table(("NAME", "ID"), [("x" * 12, "one two three"), ("y", None)], 20)
    assert shown.splitlines() == ["NAME  " + "x" * 12, "ID    one two three", "", "NAME  y", "ID    -"]
    shown = table(("NAME", "ID", "WHY"), [("x" * 12, "one two three", "-")], 20)
    assert shown.splitlines() == ["NAME  " + "x" * 12, "ID    one two three", "WHY   -"]
    shown = table(("NAME", "ID"), [("x" * 12, "in actor-12")], 18)
    assert shown.splitlines() == ["NAME  " + "x" * 12, "ID    in actor-12"]
    shown = table(("NAME", "ID"), [(" ", "x" * 11), ("y" * 11, "the actor-12")], 17)
    lines = ["NAME   ", "ID    " + "x" * 11, "", "NAME  " + "y" * 11, "ID    the", "      actor-12"]
    assert shown.splitlines() == lines, "blanks are a value too, and ids are not cut at their hyphens"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_said_in_one_line(program):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", "from actors.cli import main; main()", "list", "actors", "--json"],
            env={**os.environ, "ACTORS_HOME": str(program.home)}, stdout=full, stderr=subprocess.PIPE, text=True,
            timeout=60, check=False,
        )  # fmt: skip
    said = "actors: nothing more can be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, said)


DRIVER = """
import actors, time
actors.init(expect_nodes=2)
@actors.remote
class Sleeper:
    def name(self):
        return actors.get_runtime_context().node_name
    def sleep(self, seconds):
        print("good night", flush=True)
        time.sleep(seconds)
both = [Sleeper.options(name=f"s{i}", scheduling_strategy="SPREAD").remote() for i in range(2)]
print(*sorted(actors.get([one.name.remote() for one in both])), flush=True)
refs = [one.sleep.remote(600) for one in both]
time.sleep(600)
"""


@pytest.mark.slow
def test_devices_that_are_paired_see_each_others_actors_under_the_names_they_have(tmp_path):
    one, other = Device(tmp_path / "one"), Device(tmp_path / "other")
    try:
        one.start()
        other.start()
        one.admit(other)
        driver = one.program(DRIVER)
        assert driver.stdout is not None
        assert driver.stdout.readline()
        for device in (one, other):
            rows = json.loads(device.does("list", "actors", "--json"))
            assert len({row["node"] for row in rows}) == 2, "though both had one name before they met"
            assert {row["node"] for row in rows} == {
                n["name"] for n in json.loads(device.does("list", "nodes", "--json"))
            }
            eventually(lambda d=device: d.does("logs", "--grep", "good night").count("good night") == 2)
            for name in ("s0", "s1"):
                eventually(lambda d=device, n=name: "in sleep" in d.does("stack", n))
        for name in ("s0", "s1"):
            other.does("kill", name)
        rows = json.loads(one.does("list", "actors", "--json"))
        assert {row["state"] for row in rows} == {"DEAD"}
    finally:
        driver.kill()
        driver.communicate()
        one.run("stop")
        other.run("stop")
