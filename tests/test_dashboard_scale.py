"""The dashboard's page with a thousand actors and ten thousand events: real event objects, the real page, a browser."""

from __future__ import annotations

import json
import os
import random
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser import chromium, keep
from clusters import eventually

from actors.events.event import ActorChanged, CallEnded, LogPrinted
from actors.events.view import ClusterView, NodeView, OpenCallView
from actors.observer import Observer

uvicorn = pytest.importorskip("uvicorn", reason="the dashboard's extra, serve, is not installed")
pytest.importorskip("starlette", reason="the dashboard's extra, serve, is not installed")

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.events import Event

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

ACTORS, EVENTS, NODES = 1000, 10_000, 5
WATCHED_SECONDS = 8
GIB = 2**30

WATCH = """
window.watched = {tasks: [], frames: 0, longest: 0, last: performance.now(), begun: performance.now()};
new PerformanceObserver((list) => list.getEntries().forEach((entry) => watched.tasks.push(entry.duration)))
  .observe({type: 'longtask'});
(function frame(now) {
  watched.frames += 1; watched.longest = Math.max(watched.longest, now - watched.last); watched.last = now;
  requestAnimationFrame(frame);
})(performance.now());
"""


class Busy:
    """A cluster that is never done: what an observer is told of it."""

    def __init__(self) -> None:
        self._random = random.Random(7)
        self._number = EVENTS
        self._actors = [
            ActorChanged(
                time.time(), f"actor-{n:012x}", f"Worker{n % 7}", f"w{n}" if n % 3 else None, "default",
                f"node-{n % NODES}", "ALIVE", process=f"worker-{n}", pid=1000 + n,
            )
            for n in range(ACTORS)
        ]  # fmt: skip

    def ask(self, _: str, method: str, *args: Any, timeout: float = 0.0) -> Any:
        if method == "cluster":
            return ClusterView(tuple(self._node(number) for number in range(NODES)))
        assert method == "follow"
        known, wait = args
        first = next(iter(known), "node-0")
        if not wait:  # the past
            return {first: (self.some(EVENTS), EVENTS, 0)} if known.get(first) == 0 else {}
        time.sleep(min(wait, 0.1))
        self._number += 100
        return {first: (self.some(100), self._number, 0)}

    def some(self, count: int) -> list[Event]:
        now = time.time()
        return [self._event(now - 10 * (count - place) / count) for place in range(count)]

    def _event(self, at: float) -> Event:
        actor, caller = self._random.sample(self._actors, 2)
        if self._random.random() < 0.1:
            return LogPrinted(at, actor.id, actor.class_name, actor.name, actor.node or "", 1, "stdout", "a line " * 9)
        return CallEnded(
            at, actor.id, actor.class_name, f"method{self._random.randrange(20)}", caller.process, 0.001,
            self._random.expovariate(20), "ok", actor.node or "", actor.process, actor.pid or 0,
        )  # fmt: skip

    def _node(self, number: int) -> NodeView:
        name = f"node-{number}"
        here = [actor for actor in self._actors if actor.node == name]
        calls = [
            OpenCallView(a.id, a.id, a.class_name, "work", "RUNNING", 1.0, 0.5, "driver-1", name, a.process, ())
            for a in self._random.sample(here, 60)
        ]
        return NodeView(
            id=name, name=name, address="", pid=1, chip="chip", cpus=8, memory=64 * GIB, memory_used=9 * GIB, arena=0,
            load=2.0, resources={"CPU": 8.0}, free={"CPU": 1.0}, versions={}, number=self._number, at=time.time(),
            since=0.0, events=tuple(here), calls=tuple(calls), processes=(), tallies={},
            peers=tuple((f"node-{other}", 0.001) for other in range(NODES) if other != number),
        )  # fmt: skip


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of a dashboard, served as `actors dashboard` serves it."""
    from actors.dashboard.app import application

    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port = door.getsockname()[1]
        app = application(lambda: Observer("a busy cluster", Busy().ask), port, "token")
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
        thread.start()
        yield f"http://127.0.0.1:{port}/?token=token"
        server.should_exit = True
        thread.join(30)


def metrics(browser: Any) -> dict[str, float]:
    """What Chromium counts of the page: its main thread's time on a processor among them."""
    return {each["name"]: each["value"] for each in browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]}


def test_a_thousand_actors_and_ten_thousand_events(url: str) -> None:
    with chromium() as browser:
        browser.get(url)
        run = browser.execute_script
        eventually(lambda: run("return document.getElementById('sum-actors').textContent") == str(ACTORS), 60)
        browser.execute_cdp_cmd("Performance.enable", {})
        before = metrics(browser)
        run(WATCH)
        eventually(lambda: run("return performance.now() - watched.begun") > 1000 * WATCHED_SECONDS, 60)
        seen = run("return {...watched, seconds: (performance.now() - watched.begun) / 1000}")
        after = metrics(browser)
        computed = (after["ThreadTime"] - before["ThreadTime"]) / (after["Timestamp"] - before["Timestamp"])
        paint = run("return performance.getEntriesByName('first-contentful-paint').map((entry) => entry.startTime)")
        elements = run("return document.getElementsByTagName('*').length")
        keep(browser, "dashboard-thousand-actors")
        figures = {
            "first paint, ms": round(paint[0]),
            "frames a second": round(seen["frames"] / seen["seconds"], 1),
            "longest frame, ms": round(seen["longest"]),
            "tasks over 50 ms": len(seen["tasks"]),
            "longest task, ms": round(max(seen["tasks"], default=0)),
            "share of such tasks": round(sum(seen["tasks"]) / 1000 / seen["seconds"], 2),
            "share of a core": round(computed, 2),
            "elements": elements,
        }
        print(json.dumps(figures))
        if folder := os.environ.get("ACTORS_TEST_ARTEFACTS"):
            Path(folder, "dashboard-thousand-actors.json").write_text(json.dumps(figures, indent=1), "utf-8")

        # What is shown is bounded, all of it is kept in mind, and the page answers whoever types.
        assert len(browser.find_elements("css selector", "#actor-rows tr")) == 200
        assert elements < 12_000
        assert computed < 0.5, "what the page computes leaves most of a core, so that frames are not missed"
        filter_ = browser.find_element("id", "filter")
        filter_.send_keys("w998")
        eventually(lambda: len(browser.find_elements("css selector", "#actor-rows tr")) == 1, 20)
        assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
