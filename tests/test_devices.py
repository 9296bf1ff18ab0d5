"""Devices that pair, call each other, and shut one out, by commands and programs; each has a home of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path

import pytest

from tests.devices import Device

pytestmark = pytest.mark.timeout(240)


def eventually(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to be so in time"
        time.sleep(0.05)
    return found


@pytest.fixture
def devices(tmp_path):
    """Makes devices; their nodes end with the test."""
    made = []

    def make(count):
        made.extend(Device(tmp_path / f"d{len(made)}") for _ in range(count))
        return made[-count:]

    with ExitStack() as stack:
        stack.callback(lambda: [device.run("stop") for device in made])
        yield make


def alive(device):
    return {member["name"] for member in device.status()["members"] if member["alive"]}


def names(device):
    return {member["name"] for member in device.status()["members"]}


CALLS = """
import actors, sys
actors.init(expect_nodes={count}, timeout=20)
@actors.remote
class Echo:
    def echo(self, value): return value
    def ask(self, other, value): return actors.get(other.echo.remote(value), timeout=10)
handles = [Echo.options(node=node.id).remote() for node in actors.nodes() if node.alive]
assert actors.get([h.echo.remote(n) for n, h in enumerate(handles)], timeout=20) == list(range(len(handles)))
for one in handles:
    for other in handles:
        if one is not other:
            assert actors.get(one.ask.remote(other, 7), timeout=20) == 7
print(len(handles), flush=True)
"""

ENDLESS = """
import actors, sys, time
actors.init(expect_nodes=2, timeout=20)
@actors.remote
class Echo:
    def echo(self, value): return value
node = next(node for node in actors.nodes() if node.name == sys.argv[1]) if len(sys.argv) > 1 else None
"""


def test_start_stop_status(devices):
    (one,) = devices(1)
    assert one.run("status").returncode == 3
    one.start()
    status = one.status()
    assert (status["running"], status["paired"], status["node"]["address"]) == (True, False, "")
    assert "runs already" in one.does("start")
    refused = one.run("start", "--port", "1")
    assert (refused.returncode, "--port can only be had as it starts" in refused.stderr) == (1, True)
    nodes = json.loads(one.does("list", "nodes", "--json"))
    assert [node["alive"] for node in nodes] == [True]
    one.does("stop")
    assert one.run("list", "nodes").returncode == 3
    one.does("stop")


def test_an_unpaired_node_opens_no_port(devices):
    (one,) = devices(1)
    one.start()
    import psutil

    process = psutil.Process(one.status()["node"]["pid"])
    assert not [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]


def test_of_two_starts_at_once_one_node_comes(devices):
    (one,) = devices(1)
    starts = [one.begin("start", "--host", "127.0.0.1", "--port", "0") for _ in range(3)]
    said = [start.communicate(timeout=60) for start in starts]
    assert [start.returncode for start in starts] == [0, 0, 0], said
    one.does("stop")
    assert one.run("status").returncode == 3


def test_three_devices_pair_and_call_each_other(devices):
    a, b, c = devices(3)
    for device in (a, b, c):
        device.start()
    a.admit(b)
    b.admit(c)  # whoever belongs may let in another
    for device in (a, b, c):
        eventually(lambda device=device: len(alive(device)) == 3)
        assert {len(member["name"]) > 0 for member in device.status()["members"]} == {True}
    programs = [device.program(CALLS.format(count=3)) for device in (a, b)]  # two drivers at once
    for program in programs:
        out, err = program.communicate(timeout=60)
        assert (program.returncode, out) == (0, "3\n"), err


@pytest.mark.slow
def test_without_running_nodes_they_pair_and_a_driver_brings_its_own(devices):
    a, b = devices(2)
    a.admit(b)
    a.start()
    b.does("start", "--host", "127.0.0.1", "--port", "0")
    b.does("stop")
    out, err = (program := b.program(CALLS.format(count=2))).communicate(timeout=60)
    assert (program.returncode, out) == (0, "2\n"), err
    eventually(lambda: b.run("status").returncode == 3)  # its node ended with it


def test_a_revoked_device_is_cut_off_and_stays_out(devices):
    a, b, c = devices(3)
    for device in (a, b, c):
        device.start()
    with a.invitation("--uses", "2") as (shown, process):
        for other in (b, c):
            other.does("join", shown["code"], "--address", shown["address"])
        assert process.wait(10) == 0
    for device in (a, b, c):
        eventually(lambda device=device: len(alive(device)) == 3)
    target, own = a.status()["name"], b.status()["name"]
    endless = """
h = Echo.options(node=node.id).remote()
actors.get(h.echo.remote(1), timeout=20)
print("calls", flush=True)
try:
    while True:
        actors.get(h.echo.remote(1), timeout=20)
        time.sleep(0.01)
except Exception as error:
    print(type(error).__name__, flush=True)
"""
    source = (ENDLESS + endless).replace("import actors, sys, time", "import actors, sys, time\nsys.argv = ['', NAME]")
    inward = b.program(source.replace("NAME", repr(target)))
    outward = c.program(source.replace("NAME", repr(own)))
    assert inward.stdout.readline() == outward.stdout.readline() == "calls\n"
    begun = time.monotonic()
    assert "is removed" in a.does("revoke", own)
    for program in (inward, outward):
        assert program.stdout.readline() in {"NodeDiedError\n", "ActorDiedError\n"}
    assert time.monotonic() - begun < 10
    for program in (inward, outward):
        program.communicate(timeout=30)
    eventually(lambda: own not in names(a) | names(c))
    assert b.run("status", "--json").returncode == 0
    eventually(lambda: b.status()["removed"])
    assert b.run("invite").returncode == 4
    b.does("leave")
    eventually(lambda: not b.status()["removed"])
    a.admit(b)  # with a new key, and a new code
    eventually(lambda: len(alive(c)) == 3)


@pytest.mark.slow
def test_one_that_was_asleep_hears_of_the_new_and_of_the_removed(devices):
    a, b, c = devices(3)
    a.start()
    b.start()
    a.admit(b)
    b.does("stop")
    a.admit(c)
    b.start()
    eventually(lambda: len(names(b)) == 3)
    b.does("stop")
    a.does("revoke", c.status()["name"])
    b.start()
    eventually(lambda: len(names(b)) == 2)


def test_leaving_is_known_to_the_others(devices):
    a, b = devices(2)
    a.start()
    b.start()
    a.admit(b)
    assert len(alive(b)) == 2  # as soon as it has joined
    before = b.status()["id"]
    assert b.run("join", "00-0000-0000", "--address", "127.0.0.1:1").returncode == 4
    b.does("leave")
    eventually(lambda: len(names(a)) == 1)
    after = b.status()
    assert (after["paired"], after["running"], after["id"] == before) == (False, True, False)


def test_wrong_codes_and_the_fourth_try(devices):
    a, b = devices(2)
    with a.invitation() as (shown, process):
        assert set(shown) == {"code", "expires", "address"}
        assert 590 < datetime.fromisoformat(shown["expires"]).timestamp() - time.time() <= 600
        wrong = shown["code"][:-1] + ("0" if shown["code"][-1] != "0" else "1")
        for _ in range(3):
            done = b.run("join", wrong, "--address", shown["address"])
            assert (done.returncode, "the code is wrong" in done.stderr) == (4, True)
        assert process.wait(10) == 1
        done = b.run("join", "-", "--address", shown["address"], text=shown["code"])
        assert (done.returncode, "used, spent or over" in done.stderr) == (4, True)
    assert b.run("join", "not a code").returncode == 2
    assert not b.status()["paired"]


def test_init_at_an_address(devices):
    a, b, stranger = devices(3)
    a.start()
    a.admit(b)
    address = eventually(lambda: a.status()["node"]["address"])
    source = """
import actors, time
begun = time.monotonic()
try:
    actors.init(ADDRESS)
except actors.exceptions.AuthenticationError as error:
    print("refused", time.monotonic() - begun < 5, "actors join" in str(error))
else:
    print(len([node for node in actors.nodes() if node.alive]))
""".replace("ADDRESS", repr(address))
    assert stranger.program(source).communicate(timeout=60)[0] == "refused True True\n"
    b.does("start", "--host", "127.0.0.1", "--port", "0")
    assert b.program(source).communicate(timeout=60)[0] == "2\n"


def test_expecting_more_than_there_are_says_who_is_missing(devices):
    a, b = devices(2)
    a.start()
    a.admit(b)
    source = """
import actors
try:
    actors.init(expect_nodes=%d, timeout=%g)
except TimeoutError as error:
    print(error)
"""
    out, err = a.program(source % (2, 2)).communicate(timeout=60)
    assert "2 nodes were expected and 1 answer" in out
    assert b.status()["name"] in out
    assert "No other device is paired" not in out
    assert "1 of 2 nodes are here" in err
    out, _ = a.program(source % (3, 0.1)).communicate(timeout=60)
    assert b.status()["name"] in out
    assert "No other device is paired" in out


@pytest.mark.slow
def test_strangers_at_the_door_reach_nothing(devices):
    a, b, stranger = devices(3)
    a.start()
    b.start()
    a.admit(b)
    address = a.status()["node"]["address"]
    host, port = address.rsplit(":", 1)
    stranger.run("status")  # makes its key
    own = stranger.home / "device" / "identity.pem"
    for bytes_ in (b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", os.urandom(3000)):
        with socket.create_connection((host, int(port)), 5) as raw:
            raw.sendall(bytes_)
            raw.settimeout(8)
            with suppress(ConnectionResetError):
                while raw.recv(4096):
                    pass
    for certificate in (None, own):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        if certificate is not None:
            context.load_cert_chain(certificate)
        raw = socket.create_connection((host, int(port)), 5)
        with suppress(ConnectionError, ssl.SSLError), raw, context.wrap_socket(raw) as tls:
            tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            assert tls.recv(4096) == b""
    assert alive(a) == names(a)


@pytest.mark.slow
def test_a_killed_node_is_missed_and_comes_back(devices):
    a, b = devices(2)
    a.start()
    b.start()
    a.admit(b)
    eventually(lambda: len(alive(a)) == 2)
    os.kill(b.status()["node"]["pid"], signal.SIGKILL)
    eventually(lambda: len(alive(a)) == 1, 3.0)
    assert len(names(a)) == 2
    b.does("start")
    eventually(lambda: len(alive(a)) == 2, 5.0)


def test_in_the_foreground_a_signal_ends_it(devices):
    (one,) = devices(1)
    process = one.begin("start", "--foreground", "--host", "127.0.0.1", "--port", "0")
    assert "The node runs" in process.stdout.readline()
    assert one.status()["running"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0
    process.communicate()
    assert one.run("status").returncode == 3


def test_it_is_light_to_ask_whether_this_device_is_paired(devices):
    (one,) = devices(1)
    source = "import actors.device, sys; print(actors.device.is_paired(), 'cryptography' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", source], env=one.environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False False\n"
    assert not (Path(one.home) / "device").exists()


STAYS = """
import actors, sys, threading
actors.init(expect_nodes=2, timeout=20)
@actors.remote
class Sum:
    def __init__(self): self.sum = 0
    def add(self, amount):
        self.sum += amount
        return self.sum
    def where(self): return actors.get_runtime_context().get_node_id()
    def __actor_save__(self): return self.sum
    def __actor_load__(self, sum): self.sum = sum
@actors.remote
class Plain:
    def hello(self): return "hello"
    def name(self): return actors.get_runtime_context().node_name
names = {node.id: node.name for node in actors.nodes()}
there = sys.argv[1]
sums = [Sum.options(node=there).remote(), Sum.options(node=there, lifetime="detached", max_restarts=-1).remote()]
plain = Plain.options(node=there).remote()
actors.get([sum.add.remote(5) for sum in sums] + [plain.hello.remote()])
@actors.remote
def task(number):
    yield number
    yield number + 1
def run_tasks():
    number = 0
    while True:
        streams = [task.remote(number) for _ in range(8)]
        for stream in streams:
            if (found := [actors.get(ref) for ref in stream]) != [number, number + 1]:
                print("a task was lost", found, flush=True)
        number += 1
threading.Thread(target=run_tasks, daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    if line == "kill\\n":
        actors.kill(plain)
    elif line == "name\\n":
        print(actors.get(plain.name.remote()), flush=True)
        continue
    print(actors.get([sum.add.remote(1) for sum in sums], timeout=60),
          {names[actors.get(sum.where.remote())] for sum in sums}, flush=True)
    try:
        actors.get(Plain.options(node=there).remote().hello.remote())
    except actors.exceptions.ActorDiedError as error:
        print(error, flush=True)
    else:
        print("placed", flush=True)
"""


@pytest.mark.slow
def test_a_drained_device_is_empty_and_stays_so_until_that_is_undone(devices):
    a, b = devices(2)
    a.start()
    b.start()
    a.admit(b)
    eventually(lambda: len(alive(a)) == 2)
    here, there = a.status()["name"], b.status()["name"]
    program = a.program(STAYS.replace("sys.argv[1]", repr(there)))
    try:
        assert program.stdout.readline() == "ready\n", program.stderr.read()
        program.stdin.write("name\n")  # its process was there before the device was paired, and had its name
        program.stdin.flush()
        assert program.stdout.readline() == f"{there}\n"
        done = a.run("drain", there, "--json", "--timeout", "20")
        found = json.loads(done.stdout)
        assert done.returncode == 1, done.stderr
        assert found["node"] == there
        assert [actor["label"].split("(")[0] for actor in found["left"]] == ["Plain"]
        assert "__actor_save__" in found["left"][0]["why"]
        assert [label.split("(")[0] for label in found["moved"]] == ["Sum", "Sum"]
        program.stdin.write("kill\n")
        program.stdin.flush()
        assert program.stdout.readline() == f"[6, 6] {{{here!r}}}\n"
        assert "is being drained" in program.stdout.readline()
        assert "it can be closed" in b.does("drain", there)  # by itself, and it has nothing more to do
        assert a.run("drain", "nowhere").returncode == 1
        a.does("drain", there, "--undo")
        program.stdin.write("go on\n")
        program.stdin.flush()
        assert program.stdout.readline() == f"[7, 7] {{{here!r}}}\n"
        assert program.stdout.readline() == "placed\n"
        b.does("stop")
        program.stdin.write("go on\n")
        program.stdin.flush()
        assert program.stdout.readline() == f"[8, 8] {{{here!r}}}\n"
    finally:
        program.kill()
        program.communicate()


@pytest.mark.slow
def test_a_bundle_makes_a_member_without_a_word(devices, tmp_path):
    a, b, c = devices(3)
    a.start()
    bundle = tmp_path / "attic.bundle"
    assert "called attic" in a.does("invite", "--bundle", str(bundle))
    assert bundle.stat().st_mode & 0o777 == 0o600
    assert a.run("invite", "--bundle", str(bundle)).returncode == 1  # nothing is written over
    b.start()
    assert "This device is attic now" in b.does("join", "--bundle", str(bundle))
    eventually(lambda: alive(a) == {a.status()["name"], "attic"})
    eventually(lambda: len(alive(b)) == 2)
    assert b.run("join", "--bundle", str(bundle), "00-0000-0000").returncode == 2
    bundle.write_bytes(bundle.read_bytes()[:-40])
    assert c.run("join", "--bundle", str(bundle)).returncode == 4
    assert not c.status()["paired"]
    a.does("revoke", "attic")
    eventually(lambda: b.status()["removed"])


def test_without_a_node_of_its_own_a_device_calls_no_other_one_silent(tmp_path):
    a, b = Device(tmp_path / "a"), Device(tmp_path / "b")
    a.start()
    try:
        a.admit(b)
        done = b.run("status")
        assert (done.returncode, "unknown  127.0.0.1:" in done.stdout, "silent" in done.stdout) == (3, True, False)
        assert {member["alive"] for member in b.status()["members"]} == {None}
    finally:
        a.does("stop")


def test_an_invitation_that_only_this_machine_reaches_says_so(tmp_path):
    one = Device(tmp_path / "one")
    process = one.begin("invite", "--host", "127.0.0.1")
    try:
        shown = "".join(process.stdout.readline() for _ in range(5))
    finally:
        process.kill()
        process.communicate()
    assert re.search(r"add --address 127\.0\.0\.1:\d+, which only this machine reaches\. Waiting", shown)
