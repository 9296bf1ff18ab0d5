"""Errors of devices that few people meet, each provoked: pairing, trust, starting, and the ways between devices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import ssl
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from click import ClickException
from click.testing import CliRunner
from devices import COMMAND, Device, closed_port

from actors import communicator, device, home, residing
from actors.address import Address, host_key
from actors.cli import replay
from actors.cli.join import _candidates, _first
from actors.cli.main import actors as command
from actors.cli.revoke import _find
from actors.device import Door, Running
from actors.doctor.examination import Circle, _way_to
from actors.exceptions import ActorsError, AuthenticationError, ClusterTimeoutError, NoClusterError
from actors.identity import Identity, TrustSet
from actors.local import LocalNode, _await_ready, first_word
from actors.node.members import Member, Members
from actors.node.seeking import Seeking
from actors.nodeinfo import NodeInfo
from actors.pairing.bundle import Bundle
from actors.pairing.code import Code
from actors.pairing.exchange import Inviter, Joiner, PairingError, WrongCodeError, to_text
from actors.pairing.invitation import Invitation, Tally
from actors.pairing.joining import _read, join_at
from actors.pairing.wire import receive, send
from actors.process import Process
from actors.trust.roll import found
from actors.trust.store import to_bytes
from actors.visit import Visit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from pathlib import Path

ALICE, BOB, CARL = Identity.create(), Identity.create(), Identity.create()
CODE, WRONG = Code("42", "7K2MXQ9D"), Code("42", "7K2MXQ9E")


def run(work: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(30):
            return await work

    return asyncio.run(bounded())


# -- pairing ------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def invitation() -> AsyncIterator[int]:
    """An invitation for one device; the port it waits at."""
    roll = found(ALICE, "alice")

    async def admit(certificate: bytes, name: str) -> Any:
        return roll.added(ALICE, certificate, name)

    async def hints() -> dict[str, Any]:
        return {"doors": {}, "running": False}

    tally = Tally(1, time.monotonic() + 30)
    it = Invitation(CODE, ALICE, roll.cluster, admit, tally, hints, lambda member: None)
    port = await it.open("127.0.0.1")
    try:
        yield port
    finally:
        await it.close()


async def join(port: int, identity: Identity = BOB) -> Any:
    return await join_at("127.0.0.1", port, CODE, identity, "bob", None, lambda roll: None)


def test_of_two_who_have_the_code_the_later_one_is_told_that_it_is_used(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with invitation() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            slow = Joiner(CODE)
            await send(writer, slow.hello())
            await send(writer, slow.prove(await receive(reader)))
            slow.meet(await receive(reader))  # it has proved the code, and has not said who it is
            assert slow.keys is not None
            await join(port)
            await send(writer, {"sealed": to_text(slow.keys.card(CARL, "joiner", name="carl"))})
            assert await receive(reader) == {"error": "refused"}
            writer.close()

    with caplog.at_level(logging.WARNING):
        run(work())
    assert "was not let in: the code has been used" in caplog.text


def test_who_joins_is_told_why_the_inviter_has_ended_it() -> None:
    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await receive(reader)
        await send(writer, {"error": "refused"})
        writer.close()

    async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await receive(reader)
        writer.close()

    async def meets(inviter: Callable[..., Coroutine[Any, Any, None]], words: str) -> None:
        server = await asyncio.start_server(inviter, "127.0.0.1", 0)
        async with server:
            with pytest.raises(PairingError, match=words):
                await join(server.sockets[0].getsockname()[1])

    run(meets(refuses, "the inviter has refused: the code is used, spent or over; run `actors invite` there again"))
    run(meets(hangs_up, "the inviter has hung up: the invitation is used, spent or over"))
    with pytest.raises(PairingError, match="the inviter has sent a welcome that cannot be read"):
        _read({"doors": {}}, ALICE.node_id)


def test_an_inviter_that_does_not_list_who_joins_is_not_believed() -> None:
    async def forgets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inviter = Inviter(CODE)
        await send(writer, inviter.answer(await receive(reader)))
        await send(writer, inviter.prove(await receive(reader), ALICE, cluster="c"))
        await receive(reader)
        assert inviter.keys is not None
        welcome = {"statements": json.loads(to_bytes(found(ALICE, "alice"))), "doors": {}, "running": False}
        await send(writer, {"sealed": to_text(inviter.keys.seal("welcome", welcome))})
        writer.close()

    async def work() -> None:
        server = await asyncio.start_server(forgets, "127.0.0.1", 0)
        async with server:
            with pytest.raises(AuthenticationError, match="the inviter's list of members lacks this device or itself"):
                await join(server.sockets[0].getsockname()[1])

    run(work())


def test_a_wrong_code_and_a_place_without_a_way_are_told_apart() -> None:
    async def wrong() -> None:
        async with invitation() as port:
            await _first([("127.0.0.1", port)], WRONG, BOB, None, lambda roll: None)

    with pytest.raises(WrongCodeError, match="the code is wrong: look at it again, on the other device; it allows"):
        run(wrong())
    with pytest.raises(ActorsError, match=r"255\.255\.255\.255:9 cannot be reached: "):  # no TCP goes to all
        run(_first([("255.255.255.255", 9)], CODE, BOB, None, lambda roll: None))


def test_what_is_said_in_an_exchange_that_is_none() -> None:
    joiner, inviter = Joiner(CODE), Inviter(CODE)
    with pytest.raises(PairingError, match="the other device speaks another version of the pairing protocol"):
        Inviter(CODE).answer({**joiner.hello(), "version": 99})
    proof = joiner.prove(inviter.answer(Joiner(WRONG).hello()))
    with pytest.raises(WrongCodeError, match="the other device does not have the same code"):
        inviter.prove(proof, ALICE)
    assert inviter.keys is not None
    with pytest.raises(PairingError, match="a sealed message is not of the right form"):
        inviter.keys.open("done", inviter.keys.seal("done", ["no", "dict"]))  # type: ignore[arg-type]

    async def said(content: bytes) -> Any:
        reader = asyncio.StreamReader()
        reader.feed_data(len(content).to_bytes(4, "big") + content)
        return await receive(reader)

    for content in (b"no JSON", b"[]"):
        with pytest.raises(PairingError, match="the other device sent something that is no part of the exchange"):
            run(said(content))


def test_files_that_make_nobody_a_member(tmp_path: Path) -> None:
    roll = found(ALICE, "alice")
    for content, words in (
        ({"mlx-actors trust bundle": 99}, "another version of this package has made it"),
        (json.loads(Bundle(BOB, roll, {}).to_bytes()), "cannot be used: its device has been removed from the cluster"),
    ):
        (tmp_path / "bundle").write_text(json.dumps(content))
        with pytest.raises(AuthenticationError, match=words):
            Bundle.read(tmp_path / "bundle")
    with pytest.raises(AuthenticationError, match="it holds no private key that can be read"):
        Identity.parse(ALICE.certificate)
    (statement,) = roll.statements.values()
    with pytest.raises(AuthenticationError, match="an addition shows the certificate of another device"):
        replace(statement, certificate=BOB.certificate)._check_shape()


def test_a_device_that_is_not_there_or_shows_no_invitation(here: Path) -> None:
    with pytest.raises(ActorsError, match="no device of the cluster is called 'lamp'; there are: alice"):
        _find(found(ALICE, "alice"), "lamp")
    words = (
        r"no device shows an invitation 4711-… on this network: is `actors invite` still waiting there\? If it is, give"
    )
    device.remember_door(Door(host="127.0.0.1"))
    with pytest.raises(ClusterTimeoutError, match=words):
        run(_candidates(Code("4711", CODE.secret), 0.1))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["invite", "--name", "lamp"], "--name is for --bundle: a device that joins by a code says its name itself"),
        (
            ["launch", "-n", "1", "--working-dir", ".", "train.py"],
            "--working-dir is for --nodes: on this machine the ranks run in this folder",
        ),
    ],
)
def test_words_of_a_command_that_do_not_go_together(here: Path, words: list[str], said: str) -> None:
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def test_a_constructor_that_raises_as_its_calls_are_replayed() -> None:
    def raises() -> None:
        raise ValueError("negative")

    with pytest.raises(ClickException, match="the constructor raised ValueError: negative"):
        replay._made(SimpleNamespace(make=raises), debug=False)


@pytest.mark.slow
def test_three_wrong_codes_end_the_command_that_invites(tmp_path: Path) -> None:
    desk, lamp = Device(tmp_path / "desk"), Device(tmp_path / "lamp")
    with desk.invitation() as (shown, process):
        wrong = str(Code(Code.parse(shown["code"]).nameplate, WRONG.secret))
        for _ in range(3):
            assert lamp.run("join", wrong, "--address", shown["address"]).returncode != 0
        _, said = process.communicate(timeout=30)
    assert "three wrong codes were tried: the invitation is void. Run `actors invite` again" in said


def test_a_device_that_belongs_somewhere_joins_nothing_else(tmp_path: Path) -> None:
    desk, other = Device(tmp_path / "desk"), Device(tmp_path / "other")
    for bundle in ("lamp", "spare"):
        desk.does("invite", "--bundle", str(tmp_path / bundle), "--name", bundle)
    other.does("invite", "--bundle", str(tmp_path / "shelf"), "--name", "shelf")
    lamp = Device(tmp_path / "home-of-lamp")
    lamp.does("join", "--bundle", str(tmp_path / "lamp"))
    foreign, again = (lamp.run("join", "--bundle", str(tmp_path / bundle)) for bundle in ("shelf", "spare"))
    assert "this device belongs to another cluster: run `actors leave` here first" in foreign.stderr
    assert "this device belongs to that cluster already" in again.stderr
    assert foreign.returncode == again.returncode == 4
    me = desk.run("revoke", desk.status()["name"])
    assert me.returncode != 0
    assert "that is this device: run `actors leave` to leave the cluster" in me.stderr


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A device of its own for this process, which has nothing yet."""
    folder = tmp_path / "here"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("ACTORS_HOME", str(folder))
    return folder


def test_a_device_that_was_removed_neither_invites_nor_joins(here: Path) -> None:
    me = device.identity()
    roll = found(ALICE, "alice").added(ALICE, me.certificate, "me")
    device.store().change(lambda _: roll)
    device.store().change(lambda roll: roll.without(ALICE, me.node_id) if roll is not None else None)
    for words in (["invite"], ["join", str(CODE), "--address", "127.0.0.1:9"]):
        done = subprocess.run([sys.executable, "-c", COMMAND, *words], capture_output=True, text=True, check=False)
        assert "this device was removed from its cluster: run `actors leave` here first" in done.stderr
        assert done.returncode == 4


# -- a device's node ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_node_that_does_not_end_is_named_with_its_process(here: Path) -> None:
    place = device.hold()  # this process has it, and is not the one that is ended
    assert place is not None
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with pytest.raises(ActorsError, match=rf"the node \(process {child.pid}\) does not end; see "):
            device.stop(Running(child.pid, "", "", "", "", "", 0.0), 0.1)
    finally:
        os.close(place)
        child.communicate()


def test_ranks_on_several_machines_need_devices_that_are_paired(here: Path) -> None:
    with pytest.raises(
        communicator.NotPairedError, match=r"'192\.0\.2\.7' is not a loopback address: between machines the ranks need"
    ):
        communicator._trusted(["127.0.0.1:1", "192.0.2.7:1"], None)
    device.store().change(lambda _: found(device.identity(), "me"))
    with pytest.raises(
        ValueError, match=r"127\.0\.0\.1:1 is a loopback address, which ranks elsewhere do not reach: give"
    ):
        communicator._trusted(["127.0.0.1:1", "192.0.2.7:1"], None)


def test_a_node_that_has_ended_is_told_of_by_who_still_asks_it(here: Path) -> None:
    node = residing.DeviceNode(30.0, {}, {})
    node.check_running()
    node.close()
    with pytest.raises(ActorsError, match="the node of this device has ended; see "):
        node.check_running()
    gone = Address("node-1", host_key(), str(here / "gone.sock"), "n1", node_name="desk")
    visit = Visit(gone)
    try:
        with pytest.raises(NoClusterError, match="node desk has just ended: "):
            visit.ask("node", "status", timeout=20)
    finally:
        visit.close()


def test_a_node_that_neither_starts_nor_ends_is_not_waited_for_for_ever(here: Path) -> None:
    place = device.hold()  # as one has it that is about to say where it is, and never does
    assert place is not None
    try:
        with pytest.raises(ClusterTimeoutError, match="another node of this device neither starts nor ends; see "):
            residing.start_node(5.0, stays=True)
    finally:
        os.close(place)


def test_a_node_that_cannot_listen_where_it_is_told_says_so(here: Path) -> None:
    device.store().change(lambda _: found(device.identity(), "me"))  # one that is not paired opens no door
    with pytest.raises(ActorsError, match="the node of this device could not start: "):
        residing.start_node(30.0, stays=True, door=Door(host="203.0.113.7"))


def test_what_a_node_says_in_place_of_being_ready(tmp_path: Path) -> None:
    def node(code: str) -> LocalNode:
        log = tmp_path / "node.log"
        log.write_text("the last line of its log\n")
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
        return LocalNode("desk", Address("", "", "", ""), process, log)

    says, ends, silent = node('print(\'{"error": "no room"}\')'), node(""), node("input()")
    try:
        with pytest.raises(ActorsError, match="node desk could not start: no room"):
            _await_ready(says, time.monotonic() + 30)
        with pytest.raises(ActorsError, match="node desk could not start:\nthe last line of its log"):
            _await_ready(ends, time.monotonic() + 30)
        with pytest.raises(ClusterTimeoutError, match=r"node desk did not start in time\. It said:\nthe last line"):
            first_word(silent.process, "desk", silent.log, time.monotonic() + 0.05)
    finally:
        for each in (says, ends, silent):
            each.process.communicate(timeout=30)


# -- where a device keeps things ----------------------------------------------------------------------------------


def test_folders_for_sockets_that_cannot_be_had(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home.secrets, "token_hex", lambda count: "5" * (2 * count))
    with home.run_dir("taken"), pytest.raises(ActorsError, match=r"no fresh folder could be made in .* in 100 tries; "):
        home.run_dir("taken")
    monkeypatch.setattr(home, "SOCKET_PATH_LIMIT", 20)
    with pytest.raises(ActorsError, match="no folder is short enough for sockets, not even /tmp; "):
        home.socket_dir()


# -- between devices ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def a_node(folder: Path) -> Iterator[tuple[Process, Seeking]]:
    """A node's process, and what looks for others there; it trusts nobody."""
    process = Process("node-1", folder, "n1", "desk")
    info = NodeInfo("n1", "desk", "", True, 1, "zeroconf", {}, {}, {}, {})
    try:
        yield process, Seeking(process, Members(process, Member(info, process.address)), TrustSet(), device)
    finally:
        process.portal.close()


def test_a_member_that_nobody_knows_and_a_door_that_nobody_answers(here: Path) -> None:
    me = device.identity()
    circle = Circle(Running(1, "", "", "", "", "", 0.0), found(me, "me"), {}, {}, {})
    with pytest.raises(ActorsError, match=r"no member is called 'lamp'; there are: .*\. Or give HOST:PORT"):
        _way_to(circle, "lamp")
    with (
        pytest.raises(ClusterTimeoutError, match=r"no node answers at 127\.0\.0\.1:\d+ \(.*\): is `actors start` run"),
        a_node(here) as (node, seeking),
    ):
        node.portal.run(seeking.reach(f"127.0.0.1:{closed_port()}"))


def test_a_door_whose_device_is_not_paired(here: Path, tmp_path: Path) -> None:
    (tmp_path / "pem").write_bytes(ALICE.certificate + ALICE.private_key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")

    async def work(seeking: Seeking) -> None:
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
        async with server:
            await seeking.reach(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")

    with (
        pytest.raises(AuthenticationError, match=r"the device at 127\.0\.0\.1:\d+ is not paired with this one: run `a"),
        a_node(here) as (node, seeking),
    ):
        node.portal.run(work(seeking))
