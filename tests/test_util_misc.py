"""Serializability, metrics and progress: what they find, count and draw."""

from __future__ import annotations

import io
import pickle
import threading
from dataclasses import dataclass
from typing import Any

import pytest
from clusters import Program
from hypothesis import given
from hypothesis import strategies as st

from actors.progress import PLAIN_SECONDS, Bars, Progress
from actors.util import inspect_serializability, metrics
from actors.util.progress import tqdm

# -- inspect_serializability ------------------------------------------------------------------------------------

LOCK = threading.Lock()


@dataclass
class Box:
    inside: Any


def inspected(value: Any, **how: Any) -> tuple[bool, list[tuple[str, ...]], str]:
    out = io.StringIO()
    can, failures = inspect_serializability(value, print_file=out, **how)
    return can, sorted(failure.path for failure in failures), out.getvalue()


def test_what_can_be_sent_is_found_so() -> None:
    assert inspected({"a": [1, 2, Box(3)]}, name="data")[:2] == (True, [])
    assert inspected(lambda: Box(1))[:2] == (True, [])


def test_the_smallest_part_that_cannot_be_sent_is_named() -> None:
    lock = threading.Lock()
    box = Box({"good": 1, "bad": lock})
    can, paths, text = inspected(box, name="box")
    assert (can, paths) == (False, [("box", "inside", "['bad']")])
    assert "box -> inside -> ['bad'] cannot be sent" in text
    (failure,) = inspect_serializability(box, print_file=io.StringIO())[1]
    assert failure.obj is lock
    assert failure.parent is box.inside
    assert failure.name == "['bad']"
    assert "['bad']" in repr(failure)


def test_variables_of_functions_and_methods_of_classes_are_looked_at() -> None:
    lock = threading.Lock()

    def enclosed() -> Any:
        return lock

    class Holder:
        def method(self) -> Any:
            return lock

    assert inspected(enclosed, name="f")[:2] == (False, [("f", "lock")])
    assert inspected(Holder)[:2] == (False, [("Holder", "method", "lock")])
    assert inspected(Box(enclosed).inside.__get__(1), depth=0)[0] is False


def test_depth_ends_the_search() -> None:
    deep = Box(Box(Box(Box(threading.Lock()))))
    assert inspected(deep, name="d", depth=2)[1] == [("d", "inside", "inside")]
    assert inspected(deep, name="d", depth=0)[1] == [("d",)]
    assert inspected(deep, name="d", depth=9)[1] == [("d", "inside", "inside", "inside", "inside")]


# -- metrics ----------------------------------------------------------------------------------------------------


def reading(name: str) -> metrics.Reading:
    return next(reading for reading in metrics.snapshot() if reading.name == name)


def values(name: str) -> dict[tuple[tuple[str, str], ...], float]:
    return {tuple(series.tags.items()): series.value for series in reading(name).series}


def test_a_counter_grows_under_each_set_of_tags() -> None:
    counter = metrics.Counter("requests", description="how many", tag_keys=("route",))
    assert counter.set_default_tags({"route": "/"}) is counter
    counter.inc()
    counter.inc(2.5)
    counter.inc(1, {"route": "/a"})
    assert values("requests") == {(("route", "/"),): 3.5, (("route", "/a"),): 1}
    assert (reading("requests").kind, reading("requests").description) == ("counter", "how many")
    assert counter.info == {
        "name": "requests",
        "description": "how many",
        "tag_keys": ("route",),
        "default_tags": {"route": "/"},
    }
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="only grows"):
            counter.inc(wrong)


def test_a_gauge_keeps_the_last_value() -> None:
    gauge = metrics.Gauge("depth")
    gauge.set(3)
    gauge.set(None)
    gauge.set(-1.5)
    assert values("depth") == {(): -1.5}


def test_a_histogram_counts_into_buckets() -> None:
    histogram = metrics.Histogram("seconds", boundaries=[1, 2.5, 10], tag_keys=("kind",))
    for value in (0.5, 1, 2, 10, 11, -3):
        histogram.observe(value, tags={"kind": "x"})
    (series,) = reading("seconds").series
    assert series.buckets == (3, 1, 1, 1)
    assert (series.count, series.value) == (6, 21.5)
    assert reading("seconds").boundaries == (1, 2.5, 10)
    assert histogram.info["boundaries"] == [1, 2.5, 10]
    for wrong in (None, [], [0, 1], [2, 1], [1, 1]):
        with pytest.raises(ValueError, match="boundaries"):
            metrics.Histogram("other", boundaries=wrong)
    with pytest.raises(ValueError, match="boundaries"):
        metrics.Histogram("seconds", boundaries=[5], tag_keys=("kind",))


def test_tags_are_checked() -> None:
    gauge = metrics.Gauge("tagged", tag_keys=("a", "b"))
    with pytest.raises(ValueError, match="needs a value for the tags b"):
        gauge.set(1, {"a": "1"})
    with pytest.raises(ValueError, match="'c' is no tag"):
        gauge.set(1, {"a": "1", "b": "2", "c": "3"})
    with pytest.raises(ValueError, match="'c' is no tag"):
        gauge.set_default_tags({"c": "3"})
    with pytest.raises(TypeError, match="must be a string"):
        gauge.set(1, {"a": "1", "b": 2})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="must be a number"):
        gauge.set("1", {"a": "1", "b": "2"})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="tuple"):
        metrics.Gauge("x", tag_keys="ab")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="tuple"):
        metrics.Gauge("x", tag_keys=("a", 1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="non-empty"):
        metrics.Gauge("")


def test_two_of_one_name_are_the_same_metric_or_refused() -> None:
    metrics.Counter("same").inc()
    metrics.Counter("same").inc()
    assert values("same") == {(): 2}
    with pytest.raises(ValueError, match="there is a counter 'same'"):
        metrics.Gauge("same")
    with pytest.raises(ValueError, match="there is a counter 'same'"):
        metrics.Counter("same", tag_keys=("a",))


def test_a_metric_with_an_invalid_name_is_not_kept_and_warns() -> None:
    with pytest.warns(UserWarning, match="not kept"):
        counter = metrics.Counter("not-a-name")
    counter.inc()
    assert all(reading.name != "not-a-name" for reading in metrics.snapshot())


def test_metrics_travel_by_name() -> None:
    histogram = metrics.Histogram("sent", boundaries=[1.0], tag_keys=("a",)).set_default_tags({"a": "1"})
    again = pickle.loads(pickle.dumps(histogram))
    again.observe(0.5)
    assert again.info == histogram.info
    assert values("sent") == {(("a", "1"),): 0.5}


def test_counting_from_many_threads_loses_nothing() -> None:
    counter = metrics.Counter("threads")
    threads = [threading.Thread(target=lambda: [counter.inc() for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values("threads") == {(): 2000}


# -- progress ---------------------------------------------------------------------------------------------------


@given(
    st.builds(
        Progress,
        id=st.text(),
        description=st.text(),
        done=st.integers(0, 1 << 80) | st.floats(allow_nan=False, allow_infinity=False),
        total=st.none() | st.integers(0) | st.floats(0, 1e9),
        closed=st.booleans(),
    )
)
def test_progress_is_one_line_that_is_read_again(progress: Progress) -> None:
    assert progress.line.splitlines() == [progress.line]
    assert Progress.read(progress.line) == progress
    assert "\n" not in str(progress)


@pytest.mark.parametrize("rest", ["", "{}", "[1]", "3", '{"id": 1, "description": 2, "done": 3}', "[" * 100_000])
def test_a_line_that_only_looks_like_progress_is_a_line(rest: str) -> None:
    line = Progress("a", "b", 1, 2, False).line
    assert Progress.read(Progress("a", "b", float("inf"), 2, False).line) is None
    assert Progress.read(line.split(" ")[0] + " " + rest) is None
    assert Progress.read(f" {line}") is None
    assert Progress.read("hello") is None


def test_without_a_terminal_a_bar_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    out = io.StringIO()
    bars = Bars(out)
    bars.show(Progress("a", "long", 1, 200, False), "Worker pid=1 node=x")
    assert out.getvalue() == ""
    for done in (2, 3):
        clock[0] += PLAIN_SECONDS
        bars.show(Progress("a", "long", done, 200, False), "Worker pid=1 node=x")
        bars.show(Progress("a", "long", done, 200, False), "Worker pid=1 node=x")
    bars.show(Progress("a", "long", 200, 200, True), "Worker pid=1 node=x")
    bars.show(Progress("b", "never closed", 7, None, False))
    bars.close()
    bars.close()
    assert out.getvalue().splitlines() == [
        "(Worker pid=1 node=x) long: 2/200 (1%)",
        "(Worker pid=1 node=x) long: 3/200 (2%)",
        "(Worker pid=1 node=x) long: 200/200 (100%)",
        "never closed: 7",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_bars_are_redrawn_and_their_last_state_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    bars = Bars(out)
    bars.show(Progress("a", "[one]", 1, 4, False), "Worker pid=1")
    bars.show(Progress("b", "two", 5, None, False))
    bars.show(Progress("a", "[one]", 4, 4, True), "Worker pid=1")
    bars.show(Progress("b", "two", 6, None, True))
    text = out.getvalue()
    assert "(Worker pid=1) [one]: 4/4 (100%)" in text
    assert text.rstrip().endswith("two: 6")
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor was hidden, and is back


def test_a_bar_counts_what_goes_through_it(capsys: pytest.CaptureFixture[str]) -> None:
    bar = tqdm(range(5), desc="local")
    assert list(bar) == [0, 1, 2, 3, 4]
    assert (bar.n, bar.total) == (5, 5)
    bar.close()
    with tqdm(total=10, desc="by hand") as other:
        other.update(4)
        other.update()
        other.set_description("renamed")
    assert list(tqdm(n for n in range(2))) == [0, 1]
    with pytest.raises(ValueError, match="nothing to go through"):
        list(tqdm(total=3))
    with pytest.raises(TypeError, match="make it where the work is done"):
        pickle.dumps(tqdm(total=3))
    assert capsys.readouterr().err.splitlines() == ["local: 5/5 (100%)", "renamed: 5/10 (50%)", "2"]


def test_a_loop_that_is_left_closes_its_bar(capsys: pytest.CaptureFixture[str]) -> None:
    for value in (bar := tqdm([1, 2, 3], desc="left")):
        assert value == 1
        break
    assert bar.n == 0
    assert capsys.readouterr().err == "left: 0/3 (0%)\n"


def test_the_progress_of_actors_is_shown_by_the_driver() -> None:
    with Program(
        """
        import actors

        @actors.remote
        class Reader:
            def read(self, count):
                for number in actors.util.progress.tqdm(range(count), desc="reading"):
                    pass
                return number

        with actors.init():
            readers = [Reader.remote() for _ in range(2)]
            print(actors.get([reader.read.remote(40 + n) for n, reader in enumerate(readers)]))
        """
    ) as program:
        assert program.ends() == 0, program.report()
        assert program.printed == ["[39, 40]"]
        lines = sorted(program.complaints.splitlines())
        assert len(lines) == 2, lines
        assert all(line.startswith("(Reader pid=") for line in lines)
        assert {line.partition(") ")[2] for line in lines} == {"reading: 40/40 (100%)", "reading: 41/41 (100%)"}
