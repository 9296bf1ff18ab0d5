"""What actors print: once where many say the same, whole, in order, with who said it, and kept on the node."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections import Counter as Tally
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from clusters import Program, eventually
from hypothesis import given, settings
from hypothesis import strategies as st

import actors
from actors import runtime
from actors.console import WINDOW_SECONDS, Deduplicator, Line
from actors.node import logs
from actors.node.logs import Author, Logs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 30.0

# -- what many say at once --------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def line(source: int, text: str, stream: str = "stdout") -> Line:
    return Line(f"Worker pid={source} node=x", stream, text)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def deduplicator(clock: Clock) -> Deduplicator:
    return Deduplicator(now=clock)


def texts(lines: list[Line]) -> list[str]:
    return [line.text for line in lines]


def test_the_first_is_shown_at_once_and_the_others_are_counted(deduplicator: Deduplicator, clock: Clock) -> None:
    assert deduplicator.take([line(1, "loading")]) == [line(1, "loading")]
    assert deduplicator.take([line(source, "loading") for source in range(2, 14)]) == []
    assert deduplicator.waits
    clock.time = WINDOW_SECONDS - 0.1
    assert deduplicator.due() == []
    clock.time = WINDOW_SECONDS
    (summary,) = deduplicator.due()
    assert summary[0] == "Worker pid=13 node=x"
    assert summary[2].startswith("loading [repeated 12x across cluster] (ACTORS_DEDUP_LOGS=0")
    assert not deduplicator.waits


def test_they_are_counted_on_while_they_come(deduplicator: Deduplicator, clock: Clock) -> None:
    shown = []
    for second in range(12):
        clock.time = second
        shown += texts(deduplicator.take([line(source, "step") for source in (1, 2, 3)]))
    assert [text.partition(" (")[0] for text in shown] == [
        "step",
        "step [repeated 14x across cluster]",
        "step [repeated 15x across cluster]",
    ]
    assert texts(deduplicator.flush()) == ["step [repeated 6x across cluster]"]
    assert deduplicator.flush() == []


def test_what_differs_in_its_numbers_is_the_same(deduplicator: Deduplicator) -> None:
    assert texts(deduplicator.take([line(1, "epoch 1 loss=0.25"), line(2, "epoch 2 loss=0.5")])) == [
        "epoch 1 loss=0.25"
    ]
    assert texts(deduplicator.take([line(3, "epoch 3 took at0x7f"), line(3, "epochs")])) == [
        "epoch 3 took at0x7f",
        "epochs",
    ]


def test_what_is_nothing_but_numbers_is_always_shown(deduplicator: Deduplicator) -> None:
    lines = [line(source, text) for source in (1, 2) for text in ("42", "", "0x1f 3.5")]
    assert deduplicator.take(lines) == lines
    assert not deduplicator.waits


def test_what_one_actor_repeats_is_its_own_affair(deduplicator: Deduplicator) -> None:
    lines = [line(1, "tick") for _ in range(5)]
    assert deduplicator.take(lines) == lines


def test_one_that_was_held_back_alone_is_shown_as_it_was(deduplicator: Deduplicator, clock: Clock) -> None:
    deduplicator.take([line(1, "hello"), line(2, "hello")])
    clock.time = WINDOW_SECONDS
    assert deduplicator.due() == [line(2, "hello")]
    assert deduplicator.take([line(3, "hello")]) == [line(3, "hello")]


def test_the_two_streams_are_told_apart(deduplicator: Deduplicator) -> None:
    lines = [line(1, "hello"), line(2, "hello", "stderr")]
    assert deduplicator.take(lines) == lines


def test_a_flood_of_different_lines_does_not_fill_the_memory(deduplicator: Deduplicator) -> None:
    words = ["".join("abcdefghij"[int(digit)] for digit in str(number)) for number in range(10_002)]
    deduplicator.take([line(1, words[0]), line(2, words[0]), line(3, words[0])])
    shown = texts(deduplicator.take([line(1, word) for word in words[1:]]))
    assert len(shown) == 10_002
    assert any(text.startswith(f"{words[0]} [repeated 2x") for text in shown)
    assert not deduplicator.waits


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["a", "b c", "b 1 c", "7"]), st.integers(0, 4)), max_size=60)
)
def test_no_line_is_lost(said: list[tuple[int, str, int]]) -> None:
    clock = Clock()
    deduplicator = Deduplicator(now=clock)
    shown = []
    for source, text, wait in said:
        clock.time += wait
        shown += deduplicator.take([line(source, text)])
    shown += deduplicator.flush()
    counted: Tally[str] = Tally()
    for text in texts(shown):
        what, _, rest = text.partition(" [repeated ")
        counted[what.replace(" 1", "")] += int(rest.partition("x")[0]) if rest else 1
    assert counted == Tally(text.replace(" 1", "") for _, text, _ in said)
    assert not deduplicator.waits


# -- at the driver ----------------------------------------------------------------------------------------------

CHORUS = """
    import sys
    import actors

    @actors.remote
    class Singer:
        def sing(self, *lines, file="stdout"):
            for line in lines:
                print(line, file=getattr(sys, file))

    cluster = actors.init({arguments})
    singers = [Singer.remote() for _ in range(3)]
    {work}
"""


def chorus(work: str, arguments: str = "") -> Program:
    return Program(CHORUS.format(work=work, arguments=arguments))


def test_many_that_say_the_same_are_shown_once_and_counted_when_the_program_ends() -> None:
    # It ends without a word of farewell: the last lines are shown none the less.
    with chorus("actors.get([singer.sing.remote('together', f'on {n}') for n, singer in enumerate(singers)])") as it:
        assert it.ends() == 0, it.report()
        said = [text.partition(") ")[2].partition(" (")[0] for text in it.printed]
        together = [text for text in said if text.startswith("together")]
        assert together == ["together", "together [repeated 2x across cluster]"]
        assert len(said) == 4
        assert [text.endswith("[repeated 2x across cluster]") for text in said if text.startswith("on")] == [
            False,
            True,
        ]


def test_what_was_held_back_is_shown_at_the_end_of_its_window() -> None:
    with chorus("actors.get([singer.sing.remote('hum') for singer in singers]); import time; time.sleep(60)") as it:
        eventually(lambda: any("hum [repeated 2x" in text for text in it.printed), 20.0, it.report())


def test_every_line_is_shown_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTORS_DEDUP_LOGS", "0")
    with chorus("actors.get([singer.sing.remote('all together') for singer in singers])") as it:
        assert it.ends() == 0, it.report()
        assert len([text for text in it.printed if text.endswith(") all together")]) == 3


def test_nothing_is_shown_where_that_is_asked_for() -> None:
    work = "actors.get([singer.sing.remote('hush') for singer in singers]); print('the end')"
    with chorus(work, "log_to_driver=False") as it:
        assert it.ends() == 0, it.report()
        assert it.printed == ["the end"]


def test_lines_come_whole_in_order_and_on_their_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTORS_DEDUP_LOGS", "0")
    work = """
    lines = [f"{n} " + chr(97 + n % 26) * 3000 + " ü€" for n in range(300)]
    actors.get([singer.sing.remote(*lines) for singer in singers])
    actors.get(singers[0].sing.remote("oh", "ah", file="stderr"))
    """
    with chorus(work) as it:
        assert it.ends() == 0, it.report()
        by_singer: dict[str, list[str]] = {}
        for text in it.printed:
            who, _, what = text.partition(") ")
            by_singer.setdefault(who, []).append(what)
        assert len(by_singer) == 3
        expected = [f"{n} " + chr(97 + n % 26) * 3000 + " ü€" for n in range(300)]
        assert list(by_singer.values()) == [expected] * 3
        assert all(who.startswith("(Singer pid=") and " node=" in who for who in by_singer)
        assert [text.partition(") ")[2] for text in it.complaints.splitlines()] == ["oh", "ah"]


def test_lines_of_threads_that_print_side_by_side_stay_whole() -> None:
    with Program(
        """
        import actors

        @actors.remote(max_concurrency=8)
        class Choir:
            def sing(self, voice):
                for number in range(100):
                    print(voice * 5000)

        with actors.init():
            choir = Choir.remote()
            actors.get([choir.sing.remote(voice) for voice in "abcdefgh"])
        """
    ) as it:
        assert it.ends() == 0, it.report()
        said = Tally(text.partition(") ")[2] for text in it.printed)
        assert said == {voice * 5000: 100 for voice in "abcdefgh"}


# -- on the node ------------------------------------------------------------------------------------------------


@actors.remote
class Talker:
    def talk(self, *lines: str) -> int:
        for text in lines:
            print(text)
        print("careful", file=sys.stderr)
        return os.getpid()


def kept(who: str | int, count: int = 100) -> list[tuple[str, str, str]]:
    process = runtime.joined()
    assert process is not None
    found: list[tuple[str, str, str]] = process.portal.run(process.ask_home("logs", who, count))
    return found


def test_what_an_actor_printed_is_kept_on_its_node_also_when_it_is_gone(cluster: actors.Cluster) -> None:
    home = actors.nodes()[0].name
    talker = Talker.options(name="talker", node=home).remote()
    pid = actors.get(talker.talk.remote("one", "  two  ", "ü"), timeout=PATIENCE)
    eventually(lambda: len(kept_or_none("talker")) == 4)
    assert [text for _, stream, text in kept("talker") if stream == "stdout"] == ["one", "  two  ", "ü"]
    assert [text for _, stream, text in kept(pid) if stream == "stderr"] == ["careful"]
    assert len(kept(pid, 2)) == 2
    actors.kill(talker)
    assert len(kept("talker")) == 4
    with pytest.raises(LookupError, match="nothing that 'nobody' printed"):
        kept("nobody")


def kept_or_none(who: str) -> list[Any]:
    try:
        return kept(who)
    except LookupError:
        return []


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("ACTORS_HOME", str(tmp_path))
    yield tmp_path / "log" / "nodes"
    assert not any("worker-" in file.path for file in psutil.Process().open_files())


def read(kept: Logs, who: str | int, count: int = 10**6) -> list[str]:
    return [text for _, _, text in asyncio.run(kept.read(who, count))]


def test_who_prints_nothing_leaves_nothing(files: Path) -> None:
    kept = Logs("x")
    kept.ended("worker-1")
    kept.close()
    assert not files.exists()


def test_a_file_is_rotated_and_read_across_its_parts(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FILE_BYTES", 1000)
    kept = Logs("my node/1")
    author = Author("worker-1", 11, "actor-1", "job", "Coun<locals>ter")
    for number in range(200):
        kept.add(author, "stdout", f"line {number}")
    last = read(kept, "job")
    assert last == [f"line {number}" for number in range(200 - len(last), 200)]
    assert 50 < len(last) < 200
    assert read(kept, "actor-1", 3) == read(kept, 11, 3) == ["line 197", "line 198", "line 199"]
    kept.close()
    (folder,) = files.iterdir()
    assert "my_node_1" in folder.name
    assert folder.stat().st_mode & 0o777 == 0o700
    names = sorted(file.name for file in folder.iterdir())
    assert names == ["lock", *(f"worker-11-Coun_locals_ter.log{end}" for end in ("", ".1", ".2", ".3", ".4", ".5"))]


def test_a_worker_that_prints_before_it_is_an_actor_has_one_file(files: Path) -> None:
    kept = Logs("x")
    kept.add(Author("worker-1", 11), "stderr", "a warning")
    kept.add(Author("worker-1", 11, "actor-1", None, "Counter"), "stdout", "hello")
    assert read(kept, "actor-1") == ["a warning", "hello"]
    kept.close()


def test_few_files_are_open_and_those_of_ended_workers_are_bounded(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "OPEN_FILES", 3)
    monkeypatch.setattr(logs, "KEPT_WORKERS", 5)
    kept = Logs("x")
    for number in range(10):
        kept.add(Author(f"worker-{number}", number, f"actor-{number}", None, "C"), "stdout", f"from {number}")
    assert [read(kept, f"actor-{number}") for number in range(10)] == [[f"from {number}"] for number in range(10)]
    assert len([file for file in psutil.Process().open_files() if "worker-" in file.path]) == 3
    for number in range(8):
        kept.ended(f"worker-{number}")
    with pytest.raises(LookupError):
        read(kept, "actor-2")
    assert read(kept, "actor-3") == ["from 3"]
    kept.close()
    (folder,) = files.iterdir()
    assert len([file for file in folder.iterdir() if file.name != "lock"]) == 7


def test_what_comes_faster_than_the_disk_takes_it_is_counted(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "WAITING_BYTES", 0)
    kept = Logs("x")
    author = Author("worker-1", 1, "actor-1")
    kept._taken = 1  # the disk is behind
    kept.add(author, "stdout", "lost")
    kept.add(author, "stdout", "lost")
    kept._taken = 0
    kept.add(author, "stdout", "kept")
    assert read(kept, 1) == ["(2 lines were left out here)", "kept"]
    kept.close()


def test_old_folders_go_but_never_that_of_a_node_that_lives(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "OLD_NODES", 2)
    living = Logs("living")
    living.add(Author("worker-1", 1), "stdout", "still here")
    assert read(living, 1) == ["still here"]
    (folder,) = files.iterdir()
    oldest = folder.rename(files / f"20000101-000000-{folder.name}")
    for number in range(1, 4):
        (files / f"2000010{number}-000001-dead").mkdir()
        (files / f"2000010{number}-000001-dead" / "worker-1.log").write_text("old")
    other = Logs("other")
    other.add(Author("worker-2", 2), "stdout", "new")
    assert read(other, 2) == ["new"]
    names = sorted(path.name for path in files.iterdir())
    assert names[:3] == [oldest.name, "20000102-000001-dead", "20000103-000001-dead"]
    assert len(names) == 4
    other.close()
    living.close()


def test_a_folder_that_cannot_be_made_costs_the_log_and_nothing_else(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files.parent.mkdir()
    files.write_text("in the way")
    kept = Logs("x")
    with caplog.at_level(logging.WARNING, "actors.node.logs"):
        kept.add(Author("worker-1", 1), "stdout", "hello")
        with pytest.raises(LookupError):
            read(kept, 1)
    assert "could not be kept" in caplog.text
    kept.close()
