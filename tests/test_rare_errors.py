"""Errors that few people meet, each provoked: what they say and whose they are."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from clusters import succeed

from actors import communicator, migration
from actors._wire import distributed_comm_pb2 as pb
from actors.address import Address
from actors.answer import Answer, ask
from actors.constructor import resolved
from actors.demand import Demand
from actors.departure import Departure
from actors.exceptions import (
    ActorDiedError,
    ActorsError,
    ActorUnavailableError,
    AuthenticationError,
    CollectiveError,
    NoClusterError,
    NodeDiedError,
    ObjectLostError,
    PendingCallsLimitExceeded,
    PlacementError,
    SerializationError,
    Verdict,
    VersionMismatchError,
)
from actors.execution import _packed
from actors.failure import Place, exited, unpack
from actors.keeper import Keeper
from actors.line import Line
from actors.messages import Outcome, Payload, Reply, Shared, Terms
from actors.node import opinion
from actors.node.copies import Copies
from actors.node.custody import Passed
from actors.node.hosting import Hosting
from actors.node.members import Member
from actors.node.neighbours import Neighbours
from actors.node.placing import Placing
from actors.node.residence import Residence
from actors.node.waiting import Part, Waiting
from actors.node.wards import Wards
from actors.nodeinfo import NodeInfo
from actors.pairing.bundle import Bundle
from actors.process import Process
from actors.record import RecordError, Recording
from actors.room import Room
from actors.saving import taken
from actors.sealed import of_error
from actors.serialize import _code, dumps
from actors.simulation.virtual import VirtualLoop
from actors.spec import ActorSpec, Construction
from actors.taskqueue import TaskQueue
from actors.transport import codec, job
from actors.transport.bulk import Assembly
from actors.transport.codec import MalformedMessageError
from actors.transport.inquiry import process_at
from actors.transport.lane import Lane
from actors.transport.link import LinkLostError
from actors.transport.local_link import LocalLink
from actors.transport.peer import Death
from actors.trust.store import TrustStore
from actors.untimely import too_late
from actors.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path


SAID = ("none", "group", "find", "loop")


def test_a_folder_in_a_files_place_is_told_of_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(ActorsError, match=rf"cannot read {tmp_path}: Is a directory"):
        Bundle.read(tmp_path)
    with pytest.raises(ActorsError, match=rf"cannot read {tmp_path / 'trust'}"):
        store = TrustStore(tmp_path)
        store._path = tmp_path / "trust"
        store._path.mkdir()
        store.read()


def test_a_cluster_says_what_it_cannot_do_and_with_whom() -> None:
    said = succeed("""
        import queue
        import actors
        from actors import runtime
        from actors.observer import Observer, find

        try:
            actors.nodes()
        except actors.exceptions.NoClusterError as error:
            print("none", error)
        actors.init("local")

        @actors.remote
        class Twin:
            def two(self):
                return 2

        light = [Twin.options(isolation="thread").remote() for _ in range(2)]
        try:
            actors.collective.create_group(light)
        except actors.exceptions.CollectiveError as error:
            print("group", error)

        twins = [Twin.remote() for _ in range(2)]
        actors.get([twin.two.remote() for twin in twins])
        observer = Observer.here()
        try:
            find("Twin", [(observer, observer.view())])
        except LookupError as error:
            print("find", error)

        caught = queue.Queue()
        ref = twins[0].two.remote()

        def look():
            try:
                caught.put(actors.get(ref))
            except RuntimeError as error:
                caught.put(error)

        runtime.joined().portal.soon(look)
        print("loop", caught.get(timeout=30))
    """)
    found = dict(line.split(" ", 1) for line in said if line.startswith(SAID))
    assert found["none"].startswith("this program is in no cluster: call actors.init() first")
    assert " shares its process with other actors: make it without isolation='thread'" in found["group"]
    assert "'Twin' means " in found["find"]
    assert " actors: actor-" in found["find"]
    assert found["loop"] == "actors.get would block the I/O loop for ever; await the reference instead"


# -- state machines, asked for what comes once in a while -------------------------------------------------------------

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


class Silent:
    """A process that answers nothing, and says what was asked of it last."""

    def __init__(self, *, closed: bool = False) -> None:
        self._closed = closed
        self.cancelled: list[int] = []

    def call(self, *_: Any) -> int:
        if self._closed:
            raise RuntimeError("Event loop is closed")
        return 7

    def cancel(self, number: int) -> None:
        self.cancelled.append(number)


def test_an_answer_of_a_service_that_does_not_come() -> None:
    silent = Silent()
    with pytest.raises(TimeoutError, match=r"node desk did not answer keeper\.fetch within 0\.01 s"):
        run(ask(silent, HERE, "keeper", "fetch", dumps(None), 0.01))
    assert silent.cancelled == [7]
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


def test_a_worker_that_is_no_actor_yet_cannot_leave() -> None:
    worker = object.__new__(Worker)
    worker._construction = None
    with pytest.raises(ActorUnavailableError, match="it is just being made"):
        run(worker.emigrate(None))


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


def test_a_node_that_is_asked_for_by_name_and_has_gone() -> None:
    placing = object.__new__(Placing)
    info = NodeInfo("n2", "lamp", "", True, 1, "zeroconf", {}, {}, {}, {})
    gone = Member(info, NODE, why="it was switched off", ended=True)
    placing._members = SimpleNamespace(all=lambda: [gone], alive=list)
    with pytest.raises(PlacementError, match=r"node 'lamp' is gone \(it was switched off\); there are: "):
        placing._check_node(Demand({}, {}, node="lamp"))


def test_who_keeps_an_actor_for_others_refuses_what_is_not_its_own() -> None:
    with pytest.raises(LookupError, match="actor-9 is not kept here"):
        Wards().update("actor-9", 1, 1, dumps(None))
    with pytest.raises(ActorDiedError, match=r"Counter\(actor-1\) is in the charge of node desk now"):
        run(Passed(Silent(), "actor-1", NODE, spec()).saved(dumps(None)))

    async def elsewhere(*_: Any, **__: Any) -> Address:
        return replace(NODE, node_name="lamp")

    copies = object.__new__(Copies)
    copies._process, copies._at, lost = SimpleNamespace(ask=elsewhere), {"n1": NODE}, []
    copies._lost = lambda *what: lost.append(what)
    copies.ward = SimpleNamespace(construction=SimpleNamespace(spec=spec()))
    with pytest.raises(ActorDiedError, match=r"Counter\(actor-1\) was taken over by node lamp"):
        run(copies._tell("n1", "keep"))
    assert len(lost) == 1


def test_a_debugger_finds_that_the_process_has_just_ended() -> None:
    hosting = object.__new__(Hosting)
    hosting._service = SimpleNamespace(workers={})
    with pytest.raises(ActorDiedError, match="the process of Counter actor-1 has ended"):
        hosting._address_of(SimpleNamespace(process="worker-1", class_name="Counter", id="actor-1"))


def test_a_program_whose_nodes_are_all_gone_has_none() -> None:
    process = object.__new__(Process)
    process.home, process.directory = None, {}
    with pytest.raises(NodeDiedError, match="this process has no node"):
        run(process.ask_home("status"))


def test_a_call_in_the_moment_in_which_the_cluster_is_shut_down() -> None:
    line = object.__new__(Line)
    line.actor, line.manner = "actor-1", SimpleNamespace(retries=0, follows=False)
    ended: list[Any] = []
    call = SimpleNamespace(payload=dumps(()), method="add", terms=lambda: None, end=ended.append, sent=None)
    with pytest.raises(NoClusterError, match="the cluster was shut down while the call was made"):
        line._send(Silent(closed=True), call)
    (sealed,) = ended
    with pytest.raises(NoClusterError, match="the cluster was shut down while the call was made"):
        sealed.open()

    def closed(*_: Any) -> None:
        raise RuntimeError("Event loop is closed")

    queue = object.__new__(TaskQueue)
    queue._room, queue._lock, queue._waiting, queue._calls = Room(1, 1), threading.Lock(), deque(), 0
    queue.process = SimpleNamespace(portal=SimpleNamespace(soon=closed, is_current=True))
    task = SimpleNamespace(nbytes=1, needs=(), deadline=None)
    with pytest.raises(NoClusterError, match="the cluster was shut down while the task was submitted"):
        queue.submit(task)
    with pytest.raises(PendingCallsLimitExceeded, match="1 tasks wait: await some of them before making more"):
        queue.submit(task)
    line._room, line.label, line.process = queue._room, "Counter(actor-1)", queue.process
    line.manner = SimpleNamespace(max_pending=-1)
    with pytest.raises(
        PendingCallsLimitExceeded, match=r"1 calls to Counter\(actor-1\) wait for an answer: await some of"
    ):
        line.enter(1)


def test_what_a_call_is_told_that_came_too_late_or_ended_its_actor() -> None:
    job = SimpleNamespace(call=SimpleNamespace(terms=Terms(remaining=2.0)))
    assert f"{PLACE} was to be answered within 2 s: it had not started" in str(too_late(job, PLACE, started=False))
    assert f"{PLACE} called exit_actor(), which ends the actor" in str(exited("called exit_actor()", PLACE))


def test_an_error_that_cannot_be_put_into_a_message_at_all_is_told_by_its_kind() -> None:
    class Vile(Exception):
        def __str__(self) -> str:
            raise KeyboardInterrupt

    said = unpack(_packed(Vile(), PLACE))
    assert isinstance(said, RuntimeError)
    assert "Vile, which could not be sent: KeyboardInterrupt" in str(said)


def test_a_connection_that_the_system_says_has_ended() -> None:
    mine, theirs = socket.socketpair()
    theirs.close()
    link = object.__new__(LocalLink)
    link._socket, link._transport, link._writing = (
        mine,
        SimpleNamespace(get_write_buffer_size=lambda: 0),
        threading.Lock(),
    )
    link._ended = link._lent = False
    link._late = []
    with mine, pytest.raises(LinkLostError, match=r"the connection has ended: .*Broken pipe"):
        link.send_here(b"frame")


def test_a_frame_that_an_interrupt_has_cut_short_is_brought_by_another_connection() -> None:
    lane = object.__new__(Lane)
    given, mended = [], []
    lane._next_bytes, lane._to_writer, lane._mend = lambda: b"frame", lambda: given.append(1), lambda: mended.append(1)

    def interrupted(_: bytes) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lane._write_out(interrupted)
    assert isinstance(lane._broken, LinkLostError)
    assert (str(lane._broken), given, mended) == ("a message was interrupted", [1], [1])


def test_a_folder_for_sockets_that_has_gone() -> None:
    pytest.importorskip("grpc")
    from actors.transport.core_server import CoreServer

    async def work() -> None:
        CoreServer("/nowhere/at/all.sock", "/x", (), lambda link: None)

    with pytest.raises(OSError, match=r"gRPC cannot listen at /nowhere/at/all\.sock"):
        run(work())


def test_a_value_that_its_owner_has_not_any_more() -> None:
    keeper = object.__new__(Keeper)
    keeper._values = {}
    with pytest.raises(ObjectLostError, match="value value-1 is not kept any more by the process that owned it"):
        run(keeper.fetch(None, "value-1"))


def test_an_actor_that_is_still_searched_as_its_program_ends() -> None:
    line = object.__new__(Line)
    line.label, said = "Counter(actor-1)", []
    line.fail = said.append

    async def work() -> None:
        line._locate = lambda _: asyncio.get_running_loop().create_future()
        search = asyncio.create_task(line._find(None))
        await asyncio.sleep(0)
        search.cancel()
        with pytest.raises(asyncio.CancelledError):
            await search

    run(work())
    assert [str(error) for error in said] == ["Counter(actor-1) was not placed: its program is shutting down"]


def test_a_method_that_runs_for_longer_than_a_move_waits() -> None:
    departure = object.__new__(Departure)
    departure._place, said = SimpleNamespace(actor="Counter(actor-1)", node="desk"), []
    departure._mailbox = SimpleNamespace(running=lambda: SimpleNamespace(method="add"))
    departure.refuse = said.append
    departure._too_long()
    (error,) = said
    assert "Counter(actor-1) moves only between two calls, and its method add still ran after 30 s: it stays" in str(
        error
    )


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


def test_a_communicator_that_has_left_and_messages_that_are_none() -> None:
    with pytest.raises(RuntimeError, match=r"this communicator has left its job: call init\(rank, world_size\) again"):
        communicator.GRPCCommunicator()._run(asyncio.sleep(0))
    with pytest.raises(CollectiveError, match="a message without data arrived"):
        communicator._decode(pb.CommData(), b"", "")
    service = object.__new__(job.Job)
    service.member = SimpleNamespace(rank=0, world_size=2)
    with pytest.raises(ValueError, match="source is 9, but this job's 2 ranks are 0 to 1"):
        service._check_rank("source", 9)


def test_memory_that_is_shorter_than_what_was_told_of_it() -> None:
    assembly = object.__new__(Assembly)
    assembly._landed = (Shared(0, "worker-1-7", 0, 8), SimpleNamespace(open=lambda: memoryview(b"four")))
    with pytest.raises(ValueError, match="worker-1-7 has too few bytes of shared memory"):
        assembly._lies(8)


def test_a_record_whose_class_is_not_here() -> None:
    recording = object.__new__(Recording)
    recording.about, recording._code = {"class": "Account"}, Payload(b"cnowhere_at_all\nAccount\n.", ())
    with pytest.raises(RecordError, match="the class Account cannot be had here: "):
        recording.make()


def test_a_simulated_world_in_which_nothing_happens_any_more() -> None:
    loop = VirtualLoop()
    try:
        with pytest.raises(RuntimeError, match="nothing will ever happen any more"):
            loop.run_until_complete(loop.create_future())
    finally:
        loop.close()


def test_who_asks_a_node_what_is_not_for_it() -> None:
    stranger, member = SimpleNamespace(node="stranger"), SimpleNamespace(node="lamp")
    neighbours, residence = object.__new__(Neighbours), object.__new__(Residence)
    neighbours._may_come, residence._trust = (lambda node: node == "lamp"), {"lamp"}
    for each in (neighbours, residence):
        each._check(member)
        with pytest.raises(AuthenticationError, match="this device is no member of the cluster"):
            each._check(stranger)
    for check in (residence._must_be_local, opinion._must_be_local):
        check(SimpleNamespace(node=None))
        with pytest.raises(AuthenticationError, match="only programs of the device itself may ask this"):
            check(member)


def test_what_comes_to_be_a_chunk_or_a_greeting_and_is_none() -> None:
    header = pb.Header(shared=[pb.Shared(name="a", offset=0, size=8)])
    with pytest.raises(MalformedMessageError, match="a chunk came with its bytes and with a place where they lie"):
        codec._piece(pb.CommData(pickle_data=b"8 bytes."), header)

    def dialer(answer: Any) -> Any:
        async def nothing(*_: Any) -> None:
            return None

        async def read() -> Any:
            return answer

        async def dial(*_: Any) -> Any:
            return SimpleNamespace(write=nothing, close=nothing, read=read)

        return SimpleNamespace(dial=dial)

    for answer in (None, pb.Frame()):
        with pytest.raises(LinkLostError, match="it does not say who it is"):
            run(process_at(NODE, dialer(answer)))


# -- in a cluster -----------------------------------------------------------------------------------------------------


def test_what_a_program_is_told_that_asks_for_what_is_no_more() -> None:
    said = succeed("""
        import atexit, gc, pickle, time

        def late():
            try:
                actors.init("local")
            except actors.exceptions.NoClusterError as error:
                print("ending", error)

        atexit.register(late)  # before those of what is imported now, and so after them
        import actors
        from actors import runtime

        actors.init("local")

        @actors.remote
        class Twin:
            def two(self):
                return 2
            def leave(self):
                actors.exit_actor()
            def own(self, other):
                return [other.wait.remote()]
            def wait(self):
                time.sleep(60)
            def move(self):
                actors.move(actors.get_runtime_context().current_actor, "anywhere")

        one = Twin.remote()
        try:
            actors.get(one.move.remote())
        except ValueError as error:
            print("move", str(error).splitlines()[0])
        leaving, behind = one.leave.remote(), one.two.remote()
        for each in (leaving, behind):
            try:
                actors.get(each)
            except actors.exceptions.ActorDiedError as error:
                print("left", str(error).splitlines()[0])

        other, busy = Twin.remote(), Twin.remote()
        (value,) = actors.get(other.own.remote(busy))
        actors.kill(other)
        try:
            actors.get(value)
        except actors.exceptions.ObjectLostError as error:
            print("lost", str(error).splitlines()[0])

        nowhere = {"env_vars": {"PYTHONHOME": "/nowhere"}}
        try:
            actors.get(Twin.options(runtime_env=nowhere).remote().two.remote())
        except actors.exceptions.ActorsError as error:
            print("env", " ".join(str(error).split()))

        awaited = Twin.remote().wait.remote()
        future = awaited.future()
        actors.shutdown()
        print("shut", future.exception(timeout=30))
    """)
    assert any("ending the program is ending: no cluster can be started any more" in line for line in said)
    assert any(" has ended: it called exit_actor()" in line for line in said)
    assert any(" is lost with the process that owned it: " in line for line in said)
    assert any(" cannot move itself: it moves between two calls, and this one runs" in line for line in said)
    (env,) = [line for line in said if line.startswith("env ")]
    assert "no process starts on node " in env
    assert " in this runtime_env (env_vars): a worker could not start: " in env
    assert "shut the cluster was shut down before the value came" in said
