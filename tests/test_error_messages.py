"""Every error message: the page that lists them, and that each is provoked by a test or listed with a reason.

Which test provokes which message is told by its words: twelve characters of a message that no other message has, or all
of it, stand in a string of a test. That is weaker than to see it raised, and does not need every test to run.
"""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import actors
from actors import refs, runtime
from actors.arrays import from_npy
from actors.cluster import _launched_node
from actors.collective import meeting
from actors.collective.agreement import Offer
from actors.collective.engine import check as check_ring
from actors.communicator import GRPCCommunicator
from actors.demand import check_labels
from actors.environment import check_environment
from actors.exceptions import ActorDiedError, ModelError, PendingCallsLimitExceeded
from actors.failure import Place
from actors.holdings import Hold
from actors.initarguments import meant
from actors.launch.job import Job
from actors.launch.job import _check as launching
from actors.launch.job import _chosen as chosen_nodes
from actors.models.partitioning import partition
from actors.models.sampling import check_stops
from actors.models.sharing import Shape
from actors.muster import check_address
from actors.options import ActorOptions, MethodOptions
from actors.reduction import check_reduction
from actors.returned import several
from actors.saving import checkpoint_of
from actors.strategy import NodeAffinitySchedulingStrategy
from actors.supervision import Supervisor
from actors.util.metrics import Counter, Gauge, Histogram
from actors.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from discovery import NodeRecord
from discovery.addresses import host_and_port as split
from discovery.interfaces import chosen
from discovery.txt import from_txt as read_txt

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))

import error_messages  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LEDGER = Path(__file__).with_name("unprovoked.txt")
WINDOW = 12
COMPOSED = {  # quoted on the page of troubleshooting, and put together from several parts
    "The above exception was", "is gone: its process ended with exit code 1", "by signal SIGKILL",
    "never came to life: its constructor raised", "its last handle is gone", "assignment destination is read-only",
}  # fmt: skip


@cache
def said_in_tests() -> str:
    """All strings of all tests, as one text, but for what is told to a reader; what escapes a character is left out."""
    strings = [
        node.value
        for path in sorted(Path(__file__).parent.glob("test_*.py"))
        for node in _quoting(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return "\n".join(strings).replace("\\", "")


def _quoting(tree: ast.AST) -> Iterator[ast.AST]:
    """All parts of a program, but for docstrings and what an assertion says that fails."""
    for node in ast.iter_child_nodes(tree):
        told = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not told and not (isinstance(tree, ast.Assert) and node is tree.msg):
            yield node
            yield from _quoting(node)


def windows(text: str) -> set[str]:
    parts = [part for part in text.split(error_messages.GAP) if len(part) >= WINDOW]
    return {part[at : at + WINDOW] for part in parts for at in range(len(part) - WINDOW + 1)}


@cache
def unprovoked() -> set[str]:
    """The texts of all messages of which no test has words."""
    texts = {message.text for message in error_messages.messages()}
    number: dict[str, int] = {}
    for text in texts:
        for window in windows(text):
            number[window] = number.get(window, 0) + 1
    said = said_in_tests()
    return {
        text
        for text in texts
        if not any(number[w] == 1 and w in said for w in windows(text)) and not _whole(text, said)
    }


def _whole(text: str, said: str) -> bool:
    """Whether all that is always the same in a message stands in one line of a test, in order."""
    parts = [part for part in text.split(error_messages.GAP) if part]
    return sum(map(len, parts)) > WINDOW and bool(re.search(".{1,40}".join(map(re.escape, parts)), said))


def ledger() -> dict[str, str]:
    """What is listed: the reason of each text."""
    listed, reason = {}, ""
    for line in LEDGER.read_text("utf-8").splitlines():
        if line.startswith("# "):
            reason = line[2:]
        elif line.strip():
            listed[line.strip()] = reason
    return listed


def test_every_message_is_provoked_by_a_test_or_listed_with_a_reason() -> None:
    listed = ledger()
    assert all(listed.values()), "a reason stands above the texts it is for"
    missing = sorted(text for text in unprovoked() if " ".join(text.split()) not in listed)
    assert missing == [], f"quote some words of each in the test that provokes it, or list it in {LEDGER.name}"


def test_the_list_has_few_messages_that_are_gone_or_provoked() -> None:
    needed = {" ".join(text.split()) for text in unprovoked()}
    stale = sorted(text for text in ledger() if text not in needed)
    assert not stale, f"remove these from {LEDGER.name}: {stale}"


def test_the_page_has_every_message_and_says_what_to_do() -> None:
    page = error_messages.page()
    assert {message.kind for message in error_messages.messages()} <= set(error_messages.ADVICE)
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 600
    assert [row for row in rows if not row.rpartition(" | ")[2].rstrip(" |")] == [], "rows without anything to do"


def test_what_the_page_of_troubleshooting_quotes_is_still_said() -> None:
    found = error_messages.messages()
    quoted = [quote for quote, _ in error_messages.advised() if len(quote.split()) > 2]
    assert len(quoted) > 15
    gone = [quote for quote in quoted if not any(error_messages.quotes(quote, message) for message in found)]
    assert [quote for quote in gone if quote not in COMPOSED] == []


# -- bad input, by the place where it is refused ------------------------------------------------------------------


def record(**changed: Any) -> NodeRecord:
    given = {"id": "n1", "name": "desk", "port": 1, "addresses": (), "boot": "b", "cluster": "", "protocol": 1}
    return NodeRecord(**{**given, **changed})


def announced(**changed: Any) -> Any:
    from discovery.txt import check

    return check(record(**changed))


def options(**given: Any) -> Any:
    return ActorOptions().merged(**given)


def txt(*entries: bytes) -> Any:
    return read_txt("n1", b"".join(bytes([len(entry)]) + entry for entry in entries), 1, ())


def executor() -> Any:
    """An executor that has not begun, since what it is asked for is wrong already."""
    return object.__new__(actors.util.Executor)


def npy() -> bytes:
    """An array of one number, as `numpy.save` writes it."""
    import io

    import numpy as np

    file = io.BytesIO()
    np.save(file, np.zeros(1))
    return file.getvalue()


@actors.remote
class Rank:
    """A member of a group that asks for what cannot be."""

    def refused(self) -> list[str]:
        import numpy as np

        import actors.collective as col

        wrong: list[Callable[[], object]] = [
            lambda: col.reducescatter(np.float32(1.0)),
            lambda: col.reducescatter(np.ones(3)),
            lambda: col.broadcast(np.ones(1), 9),
            lambda: col.allreduce("text"),
            lambda: col.allreduce({"a": "text"}),
            lambda: col.recv(1 - col.get_rank(), tag=1.5),
            lambda: col.barrier(timeout="5"),
            lambda: col.barrier(timeout=-1),
        ]
        said = []
        for each in wrong:
            try:
                each()
            except Exception as error:
                said.append(str(error))
            else:
                said.append("it was not refused")
        return said


REFUSED: list[tuple[Callable[[], object], str]] = [
    # options
    (lambda: options(checkpoint="soon"), "checkpoint must be 'call', '100 calls' or '10s', not 'soon'"),
    (
        lambda: options(tensor_transport="x"),
        "the option 'tensor_transport' is not honoured: arrays travel between actors as they are; leave it out",
    ),
    (
        lambda: actors.method(len, num_returns=2),
        "@actors.method takes options by name alone, before what it decorates: @actors.method(...)",
    ),
    (lambda: options(get_if_exists=1), "get_if_exists must be True or False, not 1"),
    (lambda: options(num_cpus="2"), "num_cpus must be a number, not '2'"),
    (lambda: options(num_cpus=1e-9), "num_cpus must be 0, or 0.0001 or more, not 1e-09"),
    (lambda: options(placement_timeout="5"), "placement_timeout must be a number, not '5'"),
    (lambda: options(resources=["disk"]), "resources must be a dict with names as keys, not ['disk']"),
    (lambda: options(resources={"CPU": 1}), "use num_cpus=, num_gpus= or memory= for it"),
    (lambda: options(max_restarts=-2), "max_restarts must be a whole number from 0, or -1 for no limit, not -2"),
    (lambda: options(lifetime="long"), "lifetime must be None, 'detached' or 'non_detached', not 'long'"),
    (lambda: options(max_pending_calls=0), "max_pending_calls must be -1 or a whole number from 1, not 0"),
    (lambda: options(concurrency_groups={"io": 0}), "concurrency_groups['io'] must be a whole number from 1, not 0"),
    (lambda: options(namespace=""), "namespace must be a non-empty string, not ''"),
    (lambda: MethodOptions(num_returns="many").check(), "num_returns must be a whole number from 0, or 'streaming'"),
    (lambda: options(label_selector={"a/b/c": "x"}), "must be of the form 'name' or 'some.domain/name', not 'a/b/c'"),
    (lambda: options(label_selector={"a": 1}), "label_selector['a'] must be a string, not 1"),
    (lambda: check_labels({"a": 1}), "labels['a'] must be a string, not 1"),
    (lambda: check_labels({"a": "-"}), "must be up to 63 letters, digits, '-', '_' and '.', with a letter"),
    (lambda: NodeAffinitySchedulingStrategy(3), "node_id must be a node's id or name, not 3"),  # type: ignore[arg-type]
    (lambda: NodeAffinitySchedulingStrategy("n", "no"), "soft must be True or False, not 'no'"),  # type: ignore[arg-type]
    (
        lambda: options(isolation="thread", runtime_env={"env_vars": {"A": "1"}}),
        "shares its process with others, which has one environment: leave runtime_env= out, or isolation=",
    ),
    (
        lambda: checkpoint_of(Rank.cls, options(checkpoint="call", max_restarts=1)),
        "checkpoint='call' needs Rank to have __actor_save__(self), which returns its state, and __actor_load__(self,",
    ),
    (
        lambda: Rank.options(max_restarts=1).group(2),
        "max_restarts= and lifetime= are not for groups: one of a group cannot come back alone",
    ),
    (
        PlacementGroupSchedulingStrategy,
        "there are no placement groups: make actors that belong together by Class.group(size), or place them by sched",
    ),
    # runtime_env
    (lambda: check_environment({"env_vars": 3}), "runtime_env['env_vars'] must be a dict of strings, not 3"),
    (lambda: check_environment({"pip": {"no": 1}}), "runtime_env['pip'] has no key 'no'; there is: 'packages'"),
    (
        lambda: check_environment({"pip": {"packages": [], "pip_check": True}}),
        "['pip_check'] is not honoured; leave it out",
    ),
    (
        lambda: check_environment({"java_jars": "x"}),
        "runtime_env['java_jars'] is not honoured: actors are Python objects; leave it out",
    ),
    # programs
    (lambda: actors.init(3), "address must be 'local', or 'HOST:PORT' of a node, not 3"),  # type: ignore[arg-type]
    (lambda: actors.init("local", local_nodes=0), "local_nodes is the number of nodes to start here, 1 to 64, not 0"),
    (lambda: actors.init("local", timeout=0), "timeout must be more than 0 seconds, not 0"),
    (lambda: actors.init("local", log_to_driver=0), "log_to_driver must be True or False, not 0"),  # type: ignore[arg-type]
    (lambda: actors.init("local", engine="ray"), "engine='ray' needs the package ray, which is not installed: "),
    (lambda: actors.get_actor(""), "an actor's name is a non-empty string, not ''"),
    (lambda: actors.remote(3), "@actors.remote goes before a class or a function, not 3; options are given by name"),  # type: ignore[call-overload]
    (actors.remote, "@actors.remote() needs options; without any leave the parentheses out"),
    (Rank, "use Rank.remote(...) to make an actor, or Rank.cls(...) to make a plain object here"),
    (lambda: Rank.refused, "'refused' is called on an actor: make one first, by Rank.remote(...)"),
    (lambda: actors.wait([], timeout="5"), "timeout must be a number of seconds or None, not '5'"),
    (
        lambda: meant("192.0.2.7:1", 1),
        "this device is not paired with the one at 192.0.2.7:1: run `actors invite` there and `actors join CODE` here",
    ),
    (
        lambda: _launched_node(SimpleNamespace(), SimpleNamespace(resources={"CPU": 1.0}, labels={})),
        "this rank joins the cluster that `actors launch` has started it in: leave num_cpus=, num_gpus=, resources=",
    ),
    (
        lambda: launching(Job(1, __file__, nodes=("all",), folder=f"{__file__}.d")),
        f"test_error_messages.py does not lie in {__file__}.d, which is what the nodes get",
    ),
    (
        lambda: several([1, 2], 3, Place("desk", "Rank(actor-1)", "two", 1)),
        "Rank(actor-1).two on node desk (pid 1): expected 3 returned values, got 2; num_returns= says how",
    ),
    (lambda: actors.nonsense, "module 'actors' has no attribute 'nonsense'"),
    (lambda: actors.wait(3), "actors.wait takes a list of ObjectRefs, not "),  # type: ignore[arg-type]
    (lambda: actors.wait([], num_returns="1"), "num_returns must be a whole number, not '1'"),  # type: ignore[call-overload]
    (lambda: actors.wait([], timeout=-1), "timeout must be from 0 to "),
    (lambda: actors.kill(3), "an actor handle is needed, not "),  # type: ignore[arg-type]
    (lambda: check_reduction("most", "float32"), "unknown op 'most'; known: "),
    (lambda: check_reduction("mean", "int32"), "the mean of int32 is not a int32: convert to a floating dtype first"),
    (lambda: check_reduction("sum", "object"), "arrays of dtype object cannot be reduced; bool, integers, floats and"),
    # supervisors
    (
        lambda: Supervisor({}, strategy="none"),
        "strategy must be one of one_for_one, one_for_all, rest_for_one, not 'none'",
    ),
    (lambda: Supervisor({}, max_restarts=-1), "max_restarts must be a whole number from 0, not -1"),
    (lambda: Supervisor({}, within=0), "within is a time in seconds, not 0"),
    # utilities
    (lambda: executor().map(abs, [1], chunksize=0), "chunksize must be a whole number from 1, not 0"),
    (lambda: GRPCCommunicator().init(0, 1, timeout=0), "timeout is 0: give a number of seconds above 0"),
    (
        lambda: Shape.of({"model_type": "llama"}, 1, 1),
        "strategy='tensor' cannot make out this llama model's heads and MLP: ",
    ),
    (
        lambda: check_ring(Offer("alltoall")),
        "backend='mlx' has no alltoall: MLX's ring has allgather, allreduce, barrier, broadcast, reduce; use 'auto'",
    ),
    (
        lambda: check_ring(Offer("allreduce", "product")),
        "backend='mlx' has no op 'product': MLX's ring has sum, mean, min, max; use backend='auto'",
    ),
    (
        lambda: actors.models.ShardedModel.load("nowhere", arithmetic="float8"),
        "arithmetic must be one of auto, stored, float32, not 'float8'",
    ),
    (
        lambda: GRPCCommunicator().init(world_size=2),
        "rank is not given, and RANK is not set: give it, or start with `actors launch`",
    ),
    (
        lambda: check_address("0.0.0.0:1"),
        "'0.0.0.0' is not a loopback address: for mutual TLS give the one that the others reach",
    ),
    (
        lambda: partition([1.0], [1.0], nbytes=[], capacities=[1.0]),
        "memory is given for 0 of 1 layers and 1 of 1 stages",
    ),
    (lambda: check_stops(["end", ""]), "stop has '' in it; it must be texts that are not empty"),
    (lambda: from_npy(npy() + b"more"), "the array of numpy.save ends after 136 bytes, but 140 came"),
    (lambda: actors.util.Executor(0), "workers must be a whole number from 1, not 0"),
    (lambda: actors.util.Queue("3"), "maxsize must be a whole number, not '3'"),
    (lambda: Counter(""), "a metric's name is a non-empty string, not ''"),
    (lambda: Counter("c1", tag_keys=["a"]), "tag_keys must be a tuple of strings, not ['a']"),  # type: ignore[arg-type]
    (lambda: Counter("c1", tag_keys=(1,)), "tag_keys must be a tuple of strings, not (1,)"),  # type: ignore[arg-type]
    (lambda: Counter("c2").inc(0), "a counter only grows: value must be more than 0, not 0"),
    (lambda: Gauge("c2"), "there is a counter 'c2' with the tags () already: choose another name"),
    (lambda: Gauge("g1").set("7"), "the value of 'g1' must be a number, not '7'"),  # type: ignore[arg-type]
    (lambda: Gauge("g1").set(7, {"a": "b"}), "'a' is no tag of the metric 'g1': its tag_keys are ()"),
    (lambda: Gauge("g2", tag_keys=("a",)).set(7, {"a": 1}), "the tag 'a' must be a string, not 1"),  # type: ignore[dict-item]
    (lambda: Histogram("h1", boundaries=[2, 1]), "boundaries must be above 0 and rise: [2, 1]"),
    (
        lambda: (Histogram("h2", boundaries=[1]), Histogram("h2", boundaries=[2])),
        "there is a histogram 'h2' with the boundaries (1,) already",
    ),
    # discovery
    (lambda: split("nonsense"), "address 'nonsense' is not HOST:PORT (as in "),
    (lambda: split("desk:99999"), "address 'desk:99999': port 99999 is not between 1 and 65535"),
    (lambda: split("-desk-:1"), "'-desk-' is neither an IP address nor a host name"),
    (lambda: chosen("all"), "interfaces='all' is not understood: give None for all, 'loopback'"),
    (lambda: chosen(["nonsense"]), "interfaces: 'nonsense' is not an IP address of this machine"),
    (lambda: read_txt("n1", b"x" * 5000, 1, ()), "the TXT record has 5000 bytes; a node's has fewer than "),
    (lambda: txt(b"v=0"), "the TXT record is of version '0'; this release reads "),
    (lambda: txt(b"v=1"), "the TXT record lacks name, boot, cluster, protocol"),
    (lambda: txt(b"\xff"), "the TXT record's string at byte 0 is not UTF-8"),
    (lambda: announced(id="N 1"), "node id 'N 1' is not 1 to 63 lowercase letters, digits and inner hyphens"),
    (lambda: announced(name=""), "node name '' is empty or holds characters that cannot be shown"),
    (lambda: announced(port=0), "port 0 of node 'desk' is not between 1 and 65535"),
    (lambda: announced(addresses=("nonsense",)), "address 'nonsense' of node 'desk' is not an IP address"),
    (lambda: announced(boot="a b"), "boot nonce 'a b' is not at most 32 printable ASCII characters without spaces"),
    (lambda: announced(cluster="a b"), "cluster tag 'a b' is not at most 64 printable ASCII characters without spaces"),
]


@pytest.mark.parametrize(("wrong", "words"), [pytest.param(*each, id=each[1][:40]) for each in REFUSED])
def test_bad_input_is_refused_where_it_is_given(wrong: Callable[[], object], words: str) -> None:
    with pytest.raises(
        (ValueError, TypeError, NotImplementedError, AttributeError, actors.exceptions.ActorsError)
    ) as caught:
        wrong()
    assert words in str(caught.value)
    assert not actors.is_initialized()


def test_joblib_is_told_that_no_jobs_are_none() -> None:
    pytest.importorskip("joblib")
    from actors.util.joblib import ActorsBackend

    with pytest.raises(ValueError, match="n_jobs == 0 in Parallel has no meaning"):
        ActorsBackend().effective_n_jobs(0)


def test_what_a_client_is_told_of_an_error_that_is_not_its_own() -> None:
    pytest.importorskip("starlette")
    from actors.models.serving.errors import error_of

    lost = error_of(ActorDiedError("stage 1 was on desk"))
    assert str(lost) == "a device that holds a part of the model was lost: stage 1 was on desk"
    full = error_of(PendingCallsLimitExceeded("64 calls wait"))
    assert (full.status, str(full)) == (429, "too many requests wait for the model already; try again soon")
    assert str(error_of(KeyError("x"))) == "the server failed at this request: KeyError: 'x'"


def test_quantised_numbers_are_cut_between_their_groups() -> None:
    nn = pytest.importorskip("mlx.nn")
    from actors.models.tensor import _take_columns

    words = "numbers 16 to 48 cannot be cut out of groups of 32 quantised ones; use strategy='pipeline'"
    with pytest.raises(ModelError, match=words):
        _take_columns(nn.QuantizedLinear(64, 64, group_size=32), range(16, 48), first=True)


def test_a_browser_is_entered_once() -> None:
    import discovery

    browser = discovery.fixed("127.0.0.1:1")
    with browser:
        pass
    with pytest.raises(discovery.DiscoveryError, match="this browser was entered before; make a new one"), browser:
        pass


def test_a_port_that_is_taken_is_told_of_with_why(capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    from actors.cli.dashboard import _listen

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(actors.exceptions.ActorsError, match=r"port \d+ cannot be used: "):
            _listen(port)


def test_a_queue_that_was_shut_down_says_so() -> None:
    queue: Any = object.__new__(actors.util.Queue)
    queue.actor = None
    with pytest.raises(ActorDiedError, match="the queue was shut down here: make another one"):
        queue.put(1)


# -- in a cluster ---------------------------------------------------------------------------------------------------


@actors.remote
def task() -> int:
    return 1


REFUSED_BY_GROUPS = [
    "reducescatter splits axis 0 and the array has none: give it one with reshape",
    "reducescatter cannot split axis 0 of length 3 over 2 ranks evenly",
    "src=9 is no rank of this group: its 2 ranks go from 0 to 1",
    "only numpy and MLX arrays can be reduced; make one of the value, as in numpy.asarray(value)",
    "is a str, and only numpy and MLX arrays can be reduced; make one of it, as in numpy.asarray(value)",
    "tag must be an integer or a string, not float",
    "timeout must be a number of seconds, not str",
    "timeout must be a positive number of seconds, not -1",
]


def test_what_a_cluster_is_asked_for_in_vain(cluster: actors.Cluster) -> None:
    from clusters import Counter as Counting
    from clusters import Latch

    one = Counting.options(name="taken").remote()
    latch = Latch.remote()
    waits = latch.wait.remote()
    group = Rank.group(2)
    for wrong, words in (
        (lambda: Counting.group(0), "a group has at least one actor: size=0"),
        (lambda: actors.get_actor("nobody"), "no actor is named 'nobody' in namespace 'default'; there are: "),
        (
            lambda: Counting.options(name="taken").remote(),
            "exists in namespace 'default': take it with actors.get_actor('taken'), or pass get_if_exists=True",
        ),
        (lambda: actors.collective.create_group([]), "a group needs at least one actor"),
        (lambda: actors.collective.create_group([3]), "a group is made of actor handles, not of a int"),
        (lambda: actors.collective.create_group([one, one]), "is in the list twice: a rank is one actor"),
        (lambda: actors.collective.create_group([one], backend="x"), "unknown backend 'x'; known: "),
        (lambda: actors.wait([waits], num_returns=2), "num_returns=2, but there are 1 references"),
        (lambda: actors.get(waits, timeout=0.05), "was not there within 0.05 s; the call goes on"),
        (task, "to run it on a worker, or task.function(...) to run it here"),  # type: ignore[operator]
        (lambda: group.refused.map([1]), "map needs one value for each of 2 actors: "),
        (
            lambda: actors.get(refs._restore(Hold("value-none", runtime.joined().address))),
            "value value-none is not kept any more by this process",
        ),
        (lambda: chosen_nodes(Job(1, "x.py", nodes=("nowhere",))), "no node 'nowhere' answers; there are: "),
        (
            lambda: meeting.meet(SimpleNamespace(folder="/nowhere")),
            "this rank has joined another cluster, and the ranks of its job are not in it: call actors.init() without",
        ),
        (one.add, "call it as add.remote(...): it runs in another process"),
        (lambda: actors.kill(group), "a group has its own .kill()"),
        (lambda: actors.get_runtime_context().current_actor, "this code runs in no actor: current_actor is there in"),
        (lambda: actors.put(waits), "actors.put was given an ObjectRef, which is kept already: pass it on as it is"),
    ):
        with pytest.raises((actors.exceptions.ActorsError, ValueError, TypeError, RuntimeError)) as caught:
            wrong()  # type: ignore[no-untyped-call]
        assert words in str(caught.value)
    for said in actors.get(group.refused.remote()):
        assert [(words, text) for words, text in zip(REFUSED_BY_GROUPS, said, strict=True) if words not in text] == []
    actors.get(latch.open.remote())
    assert actors.get(waits) is None


def test_a_communicator_that_is_in_no_job() -> None:
    from actors.communicator import GRPCCommunicator

    communicator = GRPCCommunicator()
    with pytest.raises(RuntimeError, match=r"this communicator is in no job: call init\(rank, world_size\) first"):
        communicator.barrier()
