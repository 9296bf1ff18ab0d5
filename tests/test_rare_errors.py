"""Errors that few people meet, each provoked: what they say and whose they are."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from dataclasses import asdict
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from actors import migration
from actors._wire import distributed_comm_pb2 as pb
from actors.address import Address
from actors.answer import Answer
from actors.constructor import resolved
from actors.demand import Demand
from actors.device import Door
from actors.exceptions import (
    ActorDiedError,
    ActorsError,
    ActorUnavailableError,
    AuthenticationError,
    NodeDiedError,
    ObjectLostError,
    PlacementError,
    SerializationError,
    Verdict,
    VersionMismatchError,
)
from actors.execution import _packed
from actors.failure import Place, exited, unpack
from actors.job import Job
from actors.keeper import Keeper
from actors.messages import Call, Outcome, Payload, Reply, Terms
from actors.node.custody import Passed
from actors.node.members import Member, Members
from actors.node.neighbours import Neighbours
from actors.node.opinion import Opinion
from actors.node.residence import Residence
from actors.node.waiting import Part, Waiting
from actors.node.wards import Wards
from actors.nodeinfo import NodeInfo
from actors.pairing.bundle import Bundle
from actors.process import Process
from actors.record import Record, RecordError, Recording
from actors.saving import taken
from actors.sealed import of_error
from actors.serialize import _code, dumps, dumps_arguments
from actors.simulation.virtual import VirtualLoop
from actors.spec import ActorSpec, Construction
from actors.transport.acceptor import Visitor
from actors.transport.peer import Death
from actors.trust.store import FILE, TrustStore
from actors.untimely import too_late
from actors.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

HERE = Address("worker-1", "host", "/nowhere.sock", "n1", node_name="desk")
NODE = Address("node-1", "host", "/nowhere.sock", "n1", node_name="desk")
PLACE = Place("desk", "Counter(actor-1)", "add", 42)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(30):
            return await work

    return asyncio.run(bounded())


def spec(**changed: Any) -> ActorSpec:
    given = {
        "id": "actor-1",
        "label": "Counter(actor-1)",
        "class_name": "Counter",
        "name": None,
        "namespace": "default",
    }
    demand = Demand({}, {})
    return ActorSpec(**{**given, "owner": "driver-1", "driver": None, "handle": None, "demand": demand, **changed})


def test_a_folder_in_a_files_place_is_told_of_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(ActorsError, match=rf"cannot read {tmp_path}: Is a directory"):
        Bundle.read(tmp_path)
    (tmp_path / FILE).mkdir()
    with pytest.raises(ActorsError, match=rf"cannot read {tmp_path / FILE}: Is a directory"):
        TrustStore(tmp_path).read()


def test_an_answer_of_a_service_whose_process_has_ended() -> None:
    for where, kind, words in (
        (NODE, NodeDiedError, "node desk is gone: it was switched off"),
        (HERE, ActorDiedError, "process worker-1 on node desk is gone: it was switched off"),
    ):
        answer = Answer(where)
        answer.lost(Death("it was switched off"), Verdict.MAY_HAVE_RUN)
        with pytest.raises(kind, match=words):
            answer.future.result()


def test_an_actor_that_ends_while_it_is_to_move_or_just_before() -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        dies, ended = migration._Departed(loop), migration._Departed(loop)
        dies.lost(Death("its process ended with exit code 3"), Verdict.MAY_HAVE_RUN)
        with pytest.raises(ActorDiedError, match="it died while it was to move: its process ended with exit code 3"):
            await dies.state
        ended.replied(Reply(7, Outcome.ENDED, dumps(None)))
        with pytest.raises(ActorDiedError, match="the actor has just ended"):
            await ended.state

    run(work())


def test_a_worker_that_is_no_actor_yet_cannot_leave(tmp_path: Path) -> None:
    about = {"id": "worker-1", "folder": str(tmp_path), "home": asdict(NODE), "node_name": "desk"}
    worker = Worker({**about, "identity": None, "loads_ahead": False})
    try:
        with pytest.raises(ActorUnavailableError, match="it is just being made"):
            worker.process.portal.run(worker.emigrate(None))
    finally:
        worker.process.portal.close()


def test_what_was_to_be_made_of_a_call_that_failed_says_so() -> None:
    failed: Future[Any] = Future()
    failed.set_result(of_error(ValueError("negative")))
    made = Construction(dumps(None), spec(), dumps(()), 1, False, None)
    with pytest.raises(ActorDiedError, match=r"Counter\(actor-1\) never came to life: an argument failed: "):
        run(resolved(made, [failed]))


def test_one_of_a_group_that_is_given_up_takes_the_others_along() -> None:
    async def work() -> None:
        loop, waiting = asyncio.get_running_loop(), Waiting()
        parts = [Part(spec(label=f"Rank[{rank}]"), loop.create_future()) for rank in range(2)]
        wishes = [waiting.add(part, ("group-1", rank, 2), 0.0, rank) for rank, part in enumerate(parts)]
        waiting.strike(wishes[0], parts[0])
        with pytest.raises(PlacementError, match=r"Rank\[0\] of the same group was given up"):
            await parts[1].found
        parts[0].found.exception()
        assert len(waiting) == 0

    run(work())


def test_who_keeps_an_actor_for_others_refuses_what_is_not_its_own() -> None:
    with pytest.raises(LookupError, match="actor-9 is not kept here"):
        Wards().update("actor-9", 1, 1, dumps(None))
    with pytest.raises(ActorDiedError, match=r"Counter\(actor-1\) is in the charge of node desk now"):
        run(Passed(None, "actor-1", NODE, spec()).saved(dumps(None)))


def test_a_process_that_knows_no_node_has_none(tmp_path: Path) -> None:
    process = Process("driver-1", tmp_path, "n1", "desk")
    try:
        with pytest.raises(NodeDiedError, match="this process has no node"):
            process.portal.run(process.ask_home("nodes"))
    finally:
        process.portal.close()


def test_what_a_call_is_told_that_came_too_late_or_ended_its_actor() -> None:
    visitor = SimpleNamespace(session="session-1")
    job = Job(Call(1, "actor-1", "add", dumps(()), Terms(remaining=2.0)), visitor, "Counter(actor-1)")
    assert f"{PLACE} was to be answered within 2 s: it had not started" in str(too_late(job, PLACE, started=False))
    assert f"{PLACE} called exit_actor(), which ends the actor" in str(exited("called exit_actor()", PLACE))


def test_an_error_that_cannot_be_put_into_a_message_at_all_is_told_by_its_kind() -> None:
    class Vile(Exception):
        def __str__(self) -> str:
            raise KeyboardInterrupt

    said = unpack(_packed(Vile(), PLACE))
    assert isinstance(said, RuntimeError)
    assert "Vile, which could not be sent: KeyboardInterrupt" in str(said)


def test_a_value_that_its_owner_has_not_any_more() -> None:
    with pytest.raises(ObjectLostError, match="value value-1 is not kept any more by the process that owned it"):
        run(Keeper("driver-1").fetch(None, "value-1"))


def test_a_state_that_cannot_be_pickled_and_code_of_another_python() -> None:
    class Locked:
        def __actor_save__(self) -> Any:
            return threading.Lock()

    with pytest.raises(
        SerializationError, match=r"the state that __actor_save__ of Locked\(1\) returned was not saved: "
    ):
        taken(Locked(), "Locked(1)")
    with pytest.raises(
        VersionMismatchError, match=r"this code was sent by Python 2\.7, and node .* runs it with Python 3"
    ):
        _code("2.7", (), "")


def test_a_simulated_world_in_which_nothing_happens_any_more() -> None:
    loop = VirtualLoop()
    try:
        with pytest.raises(RuntimeError, match="nothing will ever happen any more"):
            loop.run_until_complete(loop.create_future())
    finally:
        loop.close()


def test_a_record_whose_class_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTORS_HOME", str(tmp_path))
    code = Payload(b"cnowhere_at_all\nCounter\n.", ())
    record = Record(Construction(code, spec(), dumps_arguments((), {}), 1, False, None), "desk")
    record._close()
    with pytest.raises(RecordError, match="the class Counter cannot be had here: "):
        Recording(record.path).make()


def test_who_asks_a_node_what_is_not_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTORS_HOME", str(tmp_path))
    process = Process("node-1", tmp_path, "n1", "desk")

    async def work() -> None:
        info = NodeInfo("n1", "desk", "", True, 1, "zeroconf", {}, {}, {}, {})
        members = Members(process, Member(info, process.address))
        residence = Residence(process, members, list, Door())
        neighbours, opinion = Neighbours(process, members), Opinion(process, members)
        own, stranger = (Visitor(pb.Hello(source="p"), node, process, process.loop) for node in (None, "stranger"))
        for refused in (residence.merge(stranger, []), neighbours.records(stranger, [])):
            with pytest.raises(AuthenticationError, match="this device is no member of the cluster"):
                await refused
        for refused in (residence.look(stranger), opinion.failures(stranger)):
            with pytest.raises(AuthenticationError, match="only programs of the device itself may ask this"):
                await refused
        assert await neighbours.records(own, []) == []
        assert await opinion.failures(own) == {}

    try:
        process.portal.run(work(), timeout=30)
    finally:
        process.portal.close()
