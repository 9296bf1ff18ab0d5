"""The dashboard: who is let in, what the page shows of a real cluster, what Prometheus is told."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from browser import chromium
from clusters import Program, eventually

from actors.dashboard.alerts import alerts
from actors.dashboard.plain import pulse_of
from actors.events.event import ActorChanged, GroupChanged
from actors.events.view import ClusterView, NodeView, OpenCallView, ProcessView

pytest.importorskip("starlette", reason="the dashboard's extra, serve, is not installed")
pytest.importorskip("uvicorn", reason="the dashboard's extra, serve, is not installed")

PROGRAM = """
    import os, time
    import numpy as np
    import actors
    import actors.collective as col
    from actors.events import ModelChanged, TokensMade
    from actors.events.recorder import emit
    from actors.util.metrics import Counter as Count, Gauge, Histogram

    actors.init("local", local_nodes=2)

    @actors.remote
    class Counter:
        def __init__(self):
            self.n = 0
            self.seen = Count("own_seen_total", "Things seen.", tag_keys=("kind",))
            self.took = Histogram("own_took_seconds", "How long.", boundaries=[0.1, 1.0])
        def add(self, k):
            self.n += k
            self.seen.inc(1, {"kind": "x"})
            self.took.observe(0.5)
            return self.n
        def sleep(self, seconds):
            print("good \\x1b[31mnight\\x1b[0m <b>bold</b>", flush=True)
            time.sleep(seconds)
        def mean(self):
            return float(col.allreduce(np.ones(3), "mean").sum())
        def die(self):
            os.kill(os.getpid(), 9)

    @actors.remote
    class Asker:
        def ask(self, other):
            return actors.get(other.sleep.remote(600))

    Gauge("own_level", "A level.").set(7)
    counter = Counter.options(name="counter").remote()
    spare = Counter.options(name="spare").remote()
    lost = Counter.options(name="lost").remote()
    asker = Asker.remote()
    lights = [Counter.options(isolation="thread").remote() for _ in range(LIGHTS)]
    actors.get([counter.add.remote(i) for i in range(10)] + [light.add.remote(1) for light in lights])
    actors.get(spare.add.remote(1))
    group = Counter.options().group(2)
    actors.get(group.mean.remote())
    lost.die.remote()
    emit(ModelChanged(time.time(), "model-1", "tiny", (("here", 0, 3), ("there", 4, 7)), "LOADED"))
    emit(TokensMade(time.time(), "model-1", "tiny", 30, 1.5))
    waits = asker.ask.remote(counter)
    print("ready", flush=True)
    while True:
        actors.get([light.add.remote(1) for light in lights[:20]])
        time.sleep(0.1)
"""


class Dashboard:
    def __init__(self, program):
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from actors.cli import main; main()", "dashboard", "--port", "0", "--json"],
            env={**os.environ, "ACTORS_HOME": str(program.home)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        said = json.loads(line)
        self.url, self.port, self.token = said["url"], said["port"], said["token"]
        eventually(self.answers)

    def answers(self):
        try:
            return self.ask("/")[0] == 401
        except OSError:
            return False

    def ask(self, path, method="GET", body=None, **headers):
        """Returns status, headers and text of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, names)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read().decode()
        finally:
            connection.close()

    def known(self, path, method="GET", body=None, **headers):
        return self.ask(path, method, body, Authorization=f"Bearer {self.token}", **headers)

    def close(self):
        self.process.terminate()
        self.process.communicate(timeout=20)


@pytest.fixture(scope="module")
def program():
    with Program(PROGRAM.replace("LIGHTS", "5")) as running:
        running.line("ready")
        yield running


@pytest.fixture(scope="module")
def dashboard(program):
    served = Dashboard(program)
    yield served
    served.close()


# -- who is let in ---------------------------------------------------------------------------------------------------

ROUTES = [
    "/",
    "/dashboard.js",
    "/dashboard.css",
    "/icon.svg",
    "/live",
    "/stack?actor=x",
    "/kill",
    "/metrics",
    "/nothing",
]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_nothing_is_answered_without_the_key_by_any_route_or_method(dashboard, path, method):
    status, headers, _ = dashboard.ask(path, method, X_Actors="1")
    assert status == 401
    assert headers["content-security-policy"].startswith("default-src 'none'")
    wrong = dashboard.ask(path, method, X_Actors="1", Authorization="Bearer wrong", Cookie="actors_dashboard_1=wrong")
    assert wrong[0] == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example:80"}, 421),
        ({"Host": "127.0.0.1"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Sec_Fetch_Site": "same-origin"}, 200),
    ],
)
def test_another_page_gets_nothing_though_it_has_the_key(dashboard, headers, status):
    assert dashboard.known("/", **headers)[0] == status


def test_the_link_gives_a_cookie_and_hides_the_token(dashboard):
    status, headers, _ = dashboard.ask(f"/?token={dashboard.token}")
    assert (status, headers["location"]) == (303, "/")
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert dashboard.token not in cookie
    assert dashboard.ask("/", Cookie=cookie.partition(";")[0])[0] == 200
    assert dashboard.ask("/?token=wrong")[0] == 401


def test_a_change_needs_a_header_of_ours_and_a_sane_body(dashboard):
    assert dashboard.known("/kill", "POST", '{"actor": "spare"}')[0] == 403
    for body in ("", "nonsense", "[]", "{}", '{"actor": "nobody"}', '{"actor": 7}'):
        status, _, text = dashboard.known("/kill", "POST", body, X_Actors="1")
        assert status == 400, body
        assert json.loads(text)["error"]
    assert dashboard.known("/kill", "DELETE", X_Actors="1")[0] == 405


def test_the_page_asks_nobody_else_and_is_small():
    page = Path(importlib.util.find_spec("actors.dashboard").origin).parent / "page"
    texts = [path.read_text() for path in page.iterdir()]
    assert sum(map(len, texts)) < 100_000
    for text in texts:
        assert "//" not in text.replace("http://www.w3.org/2000/svg", "").replace("// ", "")
        assert "innerHTML" not in text
        assert "style=" not in text


# -- what Prometheus is told -----------------------------------------------------------------------------------------


def test_prometheus_gets_our_metrics_and_the_programs_own(dashboard):
    pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")

    def told():
        status, headers, text = dashboard.known("/metrics")
        assert (status, headers["content-type"].partition(";")[0]) == (200, "text/plain"), text
        return text if 'own_seen_total{kind="x"}' in text and "own_level 7.0" in text else None

    text = eventually(told)
    for line in (
        'actors_devices{state="alive"} 2.0', 'actors_calls_total{method="Counter.mean",outcome="ok"} 2.0',
        'actors_call_duration_seconds_bucket{le="+Inf",method="Counter.mean"} 2.0',
        'actors_collectives_total{op="allreduce"} 1.0', 'actors_tokens_total{model="tiny"} 30.0',
        'actors_device_memory_bytes{device=', 'own_took_seconds_bucket{le="0.1"} 0.0', "actors_build_info{version=",
    ):  # fmt: skip
        assert line in text, line
    carried = re.findall(r'actors_(sent|received)_bytes_total{device="(.+?)",path="(.+?)",peer="(.+?)"} (\S+)', text)
    devices = {device for _, device, _, _, _ in carried}
    assert len(devices) == 2
    for one in devices:  # its own sockets, and the wire to the other
        ways = {
            (which, path, peer == one) for which, device, path, peer, count in carried if device == one and float(count)
        }
        assert ways == {(w, p, own) for w in ("sent", "received") for p, own in (("socket", True), ("grpc", False))}
    assert sum(line.startswith("# HELP") for line in text.splitlines()) == sum(
        line.startswith("# TYPE") for line in text.splitlines()
    )
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_grafanas_dashboard_asks_for_metrics_that_there_are(dashboard):
    pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")
    done = subprocess.run(
        [sys.executable, "-c", "from actors.cli import main; main()", "dashboard", "--grafana"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    asked = {
        name
        for panel in json.loads(done.stdout)["panels"]
        for target in panel["targets"]
        for name in re.findall(r"actors_\w+", target["expr"])
    }
    assert len(asked) >= 10
    text = dashboard.known("/metrics")[2]
    assert {name for name in asked if f"{name}{{" not in text} == set()


# -- alerts ----------------------------------------------------------------------------------------------------------


def node(**changed):
    plain = {
        "id": "n", "name": "here", "address": "", "pid": 1, "chip": "c", "cpus": 2, "memory": 100, "memory_used": 10,
        "arena": 0, "load": 0.0, "resources": {}, "free": {}, "versions": {}, "number": 0, "at": 0.0, "since": 0.0,
        "events": (), "calls": (), "processes": (), "tallies": {}, **changed,
    }  # fmt: skip
    return NodeView(**plain)


ACTOR = ActorChanged(time.time(), "actor-1", "Counter", "c", "default", "here", "ALIVE", process="w", pid=5)
CALL = OpenCallView("actor-1", "c(actor-1)", "Counter", "add", "RUNNING", 90.0, 80.0, "d", "here", "w", ("x.y",))


@pytest.mark.parametrize(
    ("view", "said"),
    [
        (ClusterView((node(),)), None),
        (ClusterView((node(),), (("there", "it is gone"),)), "Node there does not answer: it is gone."),
        (ClusterView((node(memory_used=95),)), "Node here has 95 % of its memory in use."),
        (ClusterView((node(peers=(("there", 0.4),)),)), "link between here and there is slow: 400 ms there and back."),
        (ClusterView((node(events=(ACTOR,), calls=(CALL,)),)), "has been in add for 80 s, waiting for x.y."),
        (ClusterView((node(events=(ACTOR,), calls=(CALL,) * 1200),)), "1200 calls wait at Counter actor-1."),
        (ClusterView((node(processes=(ProcessView("worker-1", 7, "worker", 1, False),)),)), "keeps its interpreter"),
    ],
)  # fmt: skip
def test_alerts_say_in_plain_words_what_is_wrong(view, said):
    found = [alert["what"] for alert in alerts(view)]
    if said is None:
        assert found == []
    else:
        assert any(said in what for what in found), found


def test_those_of_one_class_that_died_alike_are_one_alert():
    dead = [
        replace(
            ACTOR,
            id=f"actor-{n}",
            name=None,
            state="DEAD",
            at=ACTOR.at + n,
            reason=f"Counter(actor-{n}) on node here is gone",
        )
        for n in range(5)
    ]
    (one,) = alerts(ClusterView((node(events=dead[:1]),)))
    assert (one["what"], one["actor"]) == ("Counter(actor-0) on node here is gone.", "actor-0")
    (again,) = alerts(ClusterView((node(events=(replace(dead[0], state="RESTARTING"),)),)))
    assert again["what"] == "Counter actor-0 is made anew: Counter(actor-0) on node here is gone."
    other = replace(ACTOR, id="actor-x", state="DEAD", reason="it never came to life")
    many = alerts(ClusterView((node(events=(*dead, other)),)))
    assert {(alert["what"], alert["actor"]) for alert in many} == {
        ("5 of Counter have died, the last: Counter(actor-4) on node here is gone.", "actor-4"),
        ("Counter c has died: it never came to life.", "actor-x"),
    }


def test_a_group_of_which_one_has_died_is_broken():
    labels = ("Counter[0] on node here", "Counter[1] on node here")
    member = GroupChanged(time.time(), "group-1", 0, 2, labels, "grpc", "OPEN", "here", actor="actor-1")
    other = replace(member, rank=1, actor="actor-2")
    second = replace(ACTOR, id="actor-2")
    assert ClusterView((node(events=(ACTOR, second, member, other)),)).fate(member) == ("OPEN", "")
    died = replace(second, state="DEAD", reason="killed")
    view = ClusterView((node(events=(ACTOR, died, member, other)),))
    assert view.fate(member) == ("BROKEN", "Counter[1] on node here has died")
    (shown,) = pulse_of(view)["groups"]
    assert (shown["state"], shown["reason"]) == view.fate(member)
    assert view.fate(replace(member, state="CLOSED", reason="left")) == ("CLOSED", "left")
    anew = replace(second, life=1)
    assert ClusterView((node(events=(ACTOR, anew, member, other)),)).fate(member)[0] == "BROKEN"
    ended = replace(ACTOR, state="DEAD", reason="killed")
    assert ClusterView((node(events=(ended, died, member, other)),)).fate(member) == ("CLOSED", "all have ended")


# -- the page --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(dashboard):
    with chromium() as browser:
        browser.get(dashboard.url)
        eventually(lambda: browser.find_element("id", "live").text == "live", 20)
        yield SimpleNamespace(
            browser=browser,
            text=lambda name: browser.find_element("id", name).get_attribute("textContent"),
            find=lambda css: browser.find_element("css selector", css),
            run=browser.execute_script,
        )


def test_every_panel_shows_the_clusters_own_data(page):
    assert page.run("return location.search") == "", "the token is not left in the address"
    eventually(lambda: page.text("sum-nodes") == "2", 20)
    for panel, words in {
        "topology": ["2", "actor"], "nodes": ["Memory", "Load", "Arena"], "actor-rows": ["counter", "Asker", "ALIVE"],
        "open-rows": ["Asker.ask", "waits for", ".sleep"], "method-rows": ["Counter.add"],
        "groups": ["allreduce", "2 ranks"], "models": ["tiny", "30 tokens, 20.0 a second"],
        "logs": ["good night <b>bold</b>"], "alerts": ["lost", "SIGKILL"],
    }.items():  # fmt: skip
        eventually(lambda p=panel, w=words: all(word in page.text(p) for word in w), 20, f"{panel}: {words}")
    assert page.run("return document.querySelectorAll('#topology circle').length") >= 8
    values = """
        const canvas = document.getElementById('timeline'), pen = canvas.getContext('2d');
        return new Set(pen.getImageData(0, 0, canvas.width, canvas.height).data).size"""
    assert page.run(values) > 20, "calls are drawn"
    assert [entry for entry in page.browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_an_actor_is_found_opened_and_ended_by_keyboard(page):
    from selenium.webdriver.common.keys import Keys

    page.find("body").send_keys("/")
    page.browser.switch_to.active_element.send_keys("spare")
    eventually(lambda: len(page.browser.find_elements("css selector", "#actor-rows button")) == 1)
    page.find("#actor-rows button").send_keys(Keys.ENTER)
    eventually(lambda: "It has no calls" in page.text("detail-stack"))
    for _ in range(2):
        page.find("#detail-kill").send_keys(Keys.ENTER)
    eventually(lambda: page.text("detail-said") == "It has ended.")
    page.browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    eventually(lambda: not page.run("return document.getElementById('detail').open"))
    eventually(lambda: "No actor matches." in page.text("actor-rows"))
    page.run("const f = document.getElementById('filter'); f.value = ''; f.dispatchEvent(new Event('input'))")


def test_a_stuck_one_shows_where_it_stands(page):
    named = "[...document.querySelectorAll('#actor-rows button')].find(b => b.textContent === 'counter')"
    eventually(lambda: page.run(f"return {named}"))
    page.run(f"{named}.click()")
    eventually(lambda: "in sleep" in page.text("detail-stack"))
    assert "has waited for it for" in page.text("detail-stack")
    page.find("#detail-close").click()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_axe_finds_no_serious_fault(page, theme, width):
    axe = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")
    page.browser.set_window_size(width, 1000)
    while theme not in page.text("theme"):
        page.find("#theme").click()
    page.run(Path(axe.__file__).with_name("axe.min.js").read_text())
    found = page.browser.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    faults = [fault for fault in found["violations"] if fault["impact"] in {"serious", "critical"}]
    assert [(fault["id"], fault["nodes"][0]["html"]) for fault in faults] == []
    across = page.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert across <= 0, "it is not to be pushed sideways"


def test_when_the_cluster_ends_the_page_says_so(page, program, dashboard):
    program.process.kill()
    page.browser.set_window_size(390, 1000)
    eventually(lambda: page.text("live").startswith("not there"), 30)
    eventually(lambda: page.text("live").endswith("not seen from here"), 30)  # all of it, what to do as well
    across = page.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert across <= 0, "it is not to be pushed sideways"
    assert dashboard.known("/metrics")[0] in {200, 503}
    assert dashboard.process.poll() is None
