"""A LAN of four hosts: three are paired and live through cuts, deaths and removals; the fourth is not let in.

All traffic is recorded where the switch is, and read at the end.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from house import House, eventually
from netlab import Lab, netlab, unavailable
from wiretap import Wiretap

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.netlab,
    pytest.mark.skipif(unavailable() is not None, reason=unavailable() or ""),
    pytest.mark.timeout(300),
]
PAIRED = 3
STRANGER = 4
DOOR = 50099

DRIVER = """
import json, sys, time
import actors
actors.init(expect_nodes=int(sys.argv[1]), timeout=20)
here = actors.get_runtime_context().get_node_id()
@actors.remote
class Confidante:
    def __init__(self): self.told = 0
    def tell(self, secret):
        self.told += 1
        return self.told
    def name(self): return actors.get_runtime_context().get_actor_name()
def mine(): return Confidante.options(name="bob", node=here).remote()
handles = {}
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    try:
        print(json.dumps(eval(line)), flush=True)
    except Exception as error:
        print(json.dumps({"error": type(error).__name__, "text": str(error)}), flush=True)
"""


class Driver:
    """A program on a host that does what it is told, line by line."""

    def __init__(self, house: House, host: int, nodes: int) -> None:
        self.process = house.start(host, "-u", "-c", DRIVER, str(nodes))
        assert self._read() == "ready"

    def does(self, source: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(source + "\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        while line and not line.startswith(("{", "[", '"', "t", "f", "n")) and not line[0].isdigit():
            line = self.process.stdout.readline()
        return json.loads(line)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(30) == 0


class Street:
    """The house, its code, and who listens in the street."""

    def __init__(self, house: House, tap: Wiretap, code: str) -> None:
        self.house = house
        self.tap = tap
        self.code = code
        self.secrets = [code.partition("-")[2], code.replace("-", "")[2:]]


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Street]:
    folder = tmp_path_factory.mktemp("street")
    with netlab(PAIRED + 1) as lab, Wiretap(lab, folder / "traffic") as tap:
        house = House(lab, folder)
        try:
            yield Street(house, tap, house.pair(PAIRED, alone=1))
        finally:
            house.stop(PAIRED + 1)


def everybody(count: int) -> set[str]:
    return {f"host{host}" for host in range(1, count + 1)}


def listening(lab: Lab, host: int) -> list[str]:
    """The TCP ports on which a host listens, by ss."""
    lines = lab.run(host, "ss", "-Hltn").splitlines()
    return sorted({line.split()[3].rpartition(":")[2] for line in lines})


def test_paired_they_call_each_other_through_one_port(street: Street) -> None:
    house = street.house
    for host in range(1, PAIRED + 1):
        eventually(lambda host=host: house.answer(host) == everybody(PAIRED))
        assert listening(house.lab, host) == [str(DOOR)]
    assert listening(house.lab, STRANGER) == []
    secret = "the cat sleeps at noon"
    street.secrets += [secret, "Confidante"]
    drivers = [Driver(house, host, PAIRED) for host in (1, 2)]  # two at once
    for driver in drivers:
        driver.does("handles.update({n.name: Confidante.options(node=n.id).remote() for n in actors.nodes()}) or 1")
        told = driver.does(f"actors.get([handles[name].tell.remote({secret!r} * 5) for name in sorted(handles)])")
        assert told == [1, 1, 1]
    for driver in drivers:
        driver.close()


def test_a_cut_is_known_and_names_settle_when_it_heals(street: Street) -> None:
    house = street.house
    one, three = Driver(house, 1, PAIRED), Driver(house, 3, PAIRED)
    alive = "sorted(n.name for n in actors.nodes() if n.alive)"
    house.lab.cut(3)
    eventually(lambda: one.does(alive) == ["host1", "host2"], 15)
    eventually(lambda: three.does(alive) == ["host3"], 15)
    for driver in (one, three):
        assert driver.does("handles.update(bob=mine()) or actors.get(handles['bob'].tell.remote(1))") == 1
    house.lab.heal(3)
    for driver in (one, three):
        eventually(lambda driver=driver: driver.does(alive) == ["host1", "host2", "host3"], 15)
    listed = eventually(
        lambda: (names := one.does("sorted(actors.util.list_named_actors())")) and len(set(names)) == 2 and names, 15
    )
    loser = next(name for name in listed if name != "bob")
    assert listed == ["bob", loser]
    assert loser in {"host1/bob", "host3/bob"}
    drivers = {"host1": one, "host3": three}
    lost = drivers.pop(loser.partition("/")[0])
    (won,) = drivers.values()
    assert lost.does("actors.get(handles['bob'].tell.remote(1))") == 2  # it goes on
    assert lost.does("actors.get(handles['bob'].name.remote())") == loser  # and was told
    assert lost.does("actors.get(actors.get_actor('bob').tell.remote(1))") == 2  # which is the other one
    assert won.does(f"actors.get(actors.get_actor({loser!r}).tell.remote(1))") == 3
    assert f"is called {loser}" in house.log(int(loser[4]))
    for driver in (one, three):
        driver.close()


def test_a_killed_node_is_missed_by_all_and_is_back_when_started(street: Street) -> None:
    house = street.house
    pid = house.status(2)["node"]["pid"]
    house.lab.run(2, "kill", "-9", str(pid))
    for host in (1, 3):
        eventually(lambda host=host: house.answer(host) == {"host1", "host3"}, 10)
    why = next(member["why"] for member in house.status(1)["members"] if member["name"] == "host2")
    assert "ended" in why
    house.does(2, "start")
    for host in (1, 2, 3):
        eventually(lambda host=host: house.answer(host) == everybody(PAIRED), 10)


@pytest.mark.slow
def test_a_device_that_comes_back_with_another_address(street: Street) -> None:
    house, lab = street.house, street.house.lab
    lab.cut(3)
    eventually(lambda: house.answer(1) == {"host1", "host2"}, 15)
    for step in ("addr flush dev eth0", "addr add 10.77.0.33/24 dev eth0", "route add 224.0.0.0/4 dev eth0"):
        lab.run(3, "ip", *step.split())
    lab.heal(3)
    for host in (1, 2, 3):
        eventually(lambda host=host: house.answer(host) == everybody(PAIRED), 25)
    driver = Driver(house, 1, PAIRED)
    assert driver.does("actors.get(Confidante.options(node='host3').remote().tell.remote(1))") == 1
    where = "[n.address for n in actors.nodes() if n.name == 'host3']"
    eventually(lambda: driver.does(where) == [f"10.77.0.33:{DOOR}"], 15)
    driver.close()
    for step in ("addr flush dev eth0", "addr add 10.77.0.3/24 dev eth0", "route add 224.0.0.0/4 dev eth0"):
        lab.run(3, "ip", *step.split())
    eventually(lambda: house.answer(1) == everybody(PAIRED), 25)


# -- the fourth host ---------------------------------------------------------------------------------------------

# Each says what the door answered: an error, or how many bytes came.
INTRUDER = """
import asyncio, contextlib, json, os, socket, ssl, sys
from pathlib import Path
host, door, what = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def said(answer): print(json.dumps(answer), flush=True)

def raw(data):
    with socket.create_connection((host, door), 5) as s:
        s.settimeout(8); s.sendall(data)
        return len(s.recv(4096))

def tls(certificate=None, chain=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if certificate: context.load_cert_chain(certificate)
    with socket.create_connection((host, door), 5) as s, context.wrap_socket(s) as t:
        t.settimeout(8); t.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        return len(t.recv(4096))

async def stream(channel):
    from actors._wire import distributed_comm_pb2 as pb
    async with channel:
        call = channel.stream_stream("/distributed_comm.DistributedComm/Stream")()
        await call.write(pb.Frame(hello=pb.Hello(protocol=1)).SerializeToString())
        answer = await asyncio.wait_for(call.read(), 8)
        return len(answer) if isinstance(answer, bytes) else 0

async def plain():
    import grpc
    return await stream(grpc.aio.insecure_channel(f"{host}:{door}"))

async def as_another(victim_id):
    # A member signs a certificate in another's name, and shows both.
    import datetime, grpc
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization as s
    from cryptography.hazmat.primitives.asymmetric import ec
    from actors import device
    me = device.identity()
    issuer = x509.load_pem_x509_certificate(me.certificate)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, victim_id)])
    minted = (x509.CertificateBuilder().subject_name(name).issuer_name(issuer.subject).public_key(key.public_key())
        .serial_number(7).not_valid_before(datetime.datetime(2020, 1, 1)).not_valid_after(datetime.datetime(2090, 1, 1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(victim_id)]), False)
        .sign(s.load_pem_private_key(me.private_key, None), hashes.SHA256()))
    chain = minted.public_bytes(s.Encoding.PEM) + me.certificate
    pem = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    server = ssl.get_server_certificate((host, door)).encode()
    from actors.certificate import node_id_of
    credentials = grpc.ssl_channel_credentials(server, pem, chain)
    options = (("grpc.ssl_target_name_override", node_id_of(server)),)
    return await stream(grpc.aio.secure_channel(f"{host}:{door}", credentials, options=options))

def own():
    from actors import device
    device.identity()
    return str(device.folder() / "identity.pem")

try:
    said({
        "http": lambda: raw(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"),
        "noise": lambda: raw(os.urandom(3000)),
        "plain gRPC": lambda: asyncio.run(plain()),
        "no certificate": lambda: tls(),
        "its own certificate": lambda: tls(own()),
        "a minted certificate": lambda: asyncio.run(as_another(sys.argv[4])),
        "replay": lambda: raw(bytes.fromhex(sys.argv[4])),
    }[what]())
except Exception as error:
    said(f"{type(error).__name__}")
"""


def intrudes(house: House, host: int, port: int, what: str, *more: str) -> Any:
    process = house.start(host, "-c", INTRUDER, house.lab.address(1), str(port), what, *more)
    out, _ = process.communicate(timeout=60)
    return json.loads(out.splitlines()[-1])


@contextlib.contextmanager
def address_of_its_own(lab: Lab, host: int, address: str) -> Iterator[None]:
    """While it lasts, a host calls host 1 from another address, so that what is said of it can be told apart."""
    lab.run(host, "ip", "addr", "add", f"{address}/24", "dev", "eth0")
    lab.run(host, "ip", "route", "add", f"{lab.address(1)}/32", "dev", "eth0", "src", address)
    try:
        yield
    finally:
        lab.run(host, "ip", "route", "del", f"{lab.address(1)}/32")
        lab.run(host, "ip", "addr", "del", f"{address}/24", "dev", "eth0")


def said_of(house: House, address: str) -> list[str]:
    """What the node of host 1 says of somebody at an address."""
    return [line for line in house.log(1).splitlines() if re.search(rf"\bfrom {re.escape(address)}\b(?!\.)", line)]


def test_the_fourth_host_gets_in_nowhere(street: Street) -> None:
    house = street.house
    before = {host: house.status(host)["node"]["pid"] for host in (1, 2, 3)}
    tried = {
        what: f"10.77.0.{140 + number}"
        for number, what in enumerate(("http", "noise", "plain gRPC", "no certificate", "its own certificate"))
    }
    tried["a minted certificate"] = house.lab.address(3)

    def all_are_told_of() -> bool:
        """Tries what was not told of: it was gone before the next look, or the member itself came in meanwhile."""
        for what in (what for what, address in tried.items() if not said_of(house, address)):
            if what == "a minted certificate":
                answer = intrudes(house, 3, DOOR, what, house.status(2)["id"])
                assert answer in {"AioRpcError", "UsageError"}, answer
                continue
            with address_of_its_own(house.lab, STRANGER, tried[what]):
                answer = intrudes(house, STRANGER, DOOR, what)
            # gRPC's own first words of HTTP/2, where it says anything: nothing of ours.
            assert answer == 0 or isinstance(answer, str), (what, answer)
        with contextlib.suppress(pytest.fail.Exception):
            eventually(lambda: all(said_of(house, address) for address in tried.values()), 12)
        return all(said_of(house, address) for address in tried.values())

    eventually(all_are_told_of, 90)
    for what, address in tried.items():
        (line,) = said_of(house, address)
        todo = "actors revoke host3" if what == "a minted certificate" else "actors invite"
        assert todo in line, (what, line)
    assert {host: house.status(host)["node"]["pid"] for host in (1, 2, 3)} == before
    assert house.answer(1) == everybody(PAIRED)


@pytest.mark.slow
def test_codes_that_are_wrong_or_were_used(street: Street) -> None:
    house = street.house
    recorded = street.tap.sent(house.lab.address(2), not_at={DOOR})
    assert b"pake" in recorded, "the pairing of host 2 was not seen"
    with house.invitation(1, stderr=subprocess.PIPE) as (shown, invite):
        port = int(shown["address"].rpartition(":")[2])
        assert listening(house.lab, 1) == sorted([str(DOOR), str(port)])
        wrong = shown["code"][:-1] + ("0" if shown["code"][-1] != "0" else "1")
        answer = intrudes(house, STRANGER, port, "replay", recorded.hex())
        assert isinstance(answer, int), answer  # of an exchange that ends there: a try is spent
        for told in (["--address", shown["address"]], []):  # once by multicast
            status, _ = house.run(STRANGER, "join", wrong, *told)
            assert status == 4
        assert invite.wait(20) == 1
        assert invite.stderr is not None
        said = [line for line in invite.stderr.read().splitlines() if "10.77.0.4" in line]
        fourth = house.actors(STRANGER, "join", shown["code"], "--address", shown["address"], stderr=subprocess.PIPE)
        _, answer = fourth.communicate(timeout=60)
        assert fourth.returncode == 4  # the fourth try, with the right code
    # One line for each, and what to do. The fourth finds nobody: it is the joiner that is told.
    assert ["2 tries are left" in said[0], "1 try is left" in said[1], "void" in said[2]] == [True] * len(said), said
    assert all("Ctrl-C" in line for line in said[:2]), said
    assert "actors invite" in said[2]
    assert len([line for line in answer.splitlines() if "no invitation waits" in line and "actors invite" in line]) == 1
    assert not house.status(STRANGER)["paired"]
    assert listening(house.lab, 1) == [str(DOOR)]
    assert house.answer(1) == everybody(PAIRED)


SPOOF = """
import json, socket, ssl, sys, threading
import discovery
from actors import device
heard = []
device.identity()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(device.folder() / "identity.pem")
context.set_alpn_protocols(["h2"])
listener = socket.create_server(("", 50099))
def serve():
    while True:
        raw, _ = listener.accept()
        try:
            with context.wrap_socket(raw, server_side=True) as tls:
                tls.settimeout(3); heard.append(len(tls.recv(4096)))
        except OSError as error:
            heard.append(type(error).__name__)
threading.Thread(target=serve, daemon=True).start()
record = discovery.NodeRecord(sys.argv[1], "host2", 50099, boot="node-spoofed")
with discovery.advertise(record):
    print(json.dumps("ready"), flush=True)
    sys.stdin.read()
print(json.dumps(heard), flush=True)
"""


@pytest.mark.slow
def test_a_false_announcement_leads_nowhere(street: Street) -> None:
    house = street.house
    house.does(STRANGER, "stop")
    victim = house.status(2)["id"]
    house.does(2, "stop")  # its place is free
    eventually(lambda: house.answer(1) == {"host1", "host3"}, 10)
    spoof = house.start(STRANGER, "-c", SPOOF, victim)
    assert spoof.stdout is not None
    assert json.loads(spoof.stdout.readline()) == "ready"

    def false() -> list[str]:
        return [ln for ln in house.log(1).splitlines() if "10.77.0.4:50099" in ln]

    eventually(false, 20)
    assert house.answer(1) == {"host1", "host3"}
    house.does(2, "start")
    eventually(lambda: house.answer(1) == everybody(PAIRED), 15)
    out, _ = spoof.communicate(timeout=30)
    heard = json.loads(out)
    assert heard  # they came
    assert not [each for each in heard if isinstance(each, int) and each], heard  # and said nothing
    (line,) = false()
    assert "actors doctor" in line


def test_a_revoked_device_is_out_everywhere(street: Street) -> None:
    house = street.house
    driver = Driver(house, 1, PAIRED)
    assert driver.does("handles.update(far=Confidante.options(node='host3').remote()) or 1") == 1
    assert driver.does("actors.get(handles['far'].tell.remote(1))") == 1
    house.does(2, "revoke", "host3")
    # Host 1 hears of it from host 2, and may be quicker to call.
    said: list[object] = []

    def refused() -> bool:
        said.append(driver.does("actors.get(handles['far'].tell.remote(1), timeout=20)"))
        return isinstance(said[-1], dict)

    eventually(refused, 15)
    assert said[-1]["error"] in {"NodeDiedError", "ActorDiedError"}, said
    driver.close()
    for host in (1, 2):
        eventually(lambda host=host: house.answer(host) == {"host1", "host2"}, 10)
    eventually(lambda: house.status(3)["removed"], 10)
    house.does(3, "leave")
    with house.invitation(2) as (shown, invite):
        house.does(3, "join", shown["code"])
        assert invite.wait(30) == 0
    for host in (1, 2, 3):
        eventually(lambda host=host: house.answer(host) == everybody(PAIRED), 15)


def test_whoever_listens_learns_nothing(street: Street) -> None:
    """Runs last: reads all that went over the switch."""
    tap = street.tap
    for host in range(1, PAIRED + 1):
        for path in street.house.home(host).rglob("identity.pem"):
            street.secrets.append(path.read_text().splitlines()[1])
    found = [secret for secret in street.secrets if tap.saw(secret.encode())]
    assert not found
    assert tap.saw(b"_mlx-actors")  # it did listen
    firsts = tap.first_bytes(DOOR)
    assert len(firsts) > 10
    # What members say begins with TLS; the rest is the fourth host's.
    members = {street.house.lab.address(host) for host in range(1, PAIRED + 1)}
    assert {first[:2] for source, first in firsts if source in members} == {b"\x16\x03"}
