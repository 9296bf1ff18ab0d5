"""Messages that one call provokes: what is foreign, damaged or hostile is refused in words, and wrong arguments too."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import actors
from actors import arrays
from actors._wire import distributed_comm_pb2 as pb
from actors.collective.agreement import Offer
from actors.collective.engine import check as check_ring
from actors.collective.packing import Spec
from actors.communicator import GRPCCommunicator
from actors.context import RuntimeContext
from actors.costs import Costs
from actors.exceptions import ActorsError
from actors.identity import Identity
from actors.models.checkpoint import ModelInfo
from actors.models.directory import _check_header, _read_json
from actors.models.gguf import GgufFile, read_header
from actors.models.llama import _number, _rope_scaling
from actors.models.llama import config as llama_config
from actors.models.partitioning import partition
from actors.models.plan import Device, make_plan
from actors.models.sampling import Request, Sampling
from actors.models.weights import _inside
from actors.options import ActorOptions
from actors.pairing.bundle import Bundle
from actors.pairing.exchange import Keys, _finish, bytes_in, text_in
from actors.public import Part
from actors.record import Recording
from actors.returned import iterator, several
from actors.saving import checkpoint_of
from actors.supervision import _Supervising
from actors.transport import codec
from actors.transport.bulk import Assembly
from actors.transport.public import _part
from actors.trust.roll import MOST_STATEMENTS, Roll, found
from actors.trust.statement import Statement
from actors.trust.store import FILE, LARGEST_BYTES, TrustStore, statements_of
from actors.util.queue import Queue, _patience

if TYPE_CHECKING:
    from collections.abc import Callable


@cache
def desk() -> Identity:
    return Identity.create()


@cache
def lamp() -> Identity:
    return Identity.create()


def statement(**changed: object) -> Statement:
    """A founding as a device sends it, with other fields."""
    (said,) = found(desk(), "desk").statements.values()
    return Statement.from_plain({**said.to_plain(), **changed})


def too_many() -> Roll:
    (said,) = found(desk(), "desk").statements.values()
    return Roll([replace(said, signature=number.to_bytes(4)) for number in range(MOST_STATEMENTS + 1)])


def let_in_again() -> Roll:
    cluster = found(desk(), "desk").added(desk(), lamp().certificate, "lamp")
    return cluster.without(desk(), lamp().node_id).added(desk(), lamp().certificate, "lamp")


def kept(folder: Path, content: str, mode: int = 0o600) -> Roll | None:
    path = folder / FILE
    path.write_text(content, "utf-8")
    path.chmod(mode)
    return TrustStore(folder).read()


def file(folder: Path, content: bytes, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(folder: Path, *entries: bytes, tensors: tuple[bytes, ...] = (), version: int = 3) -> GgufFile:
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(entries))
    return read_header(file(folder, head + b"".join(entries) + b"".join(tensors)))


def entry(kind: int, value: bytes = b"", key: str = "general.alignment") -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(*shape: int, dims: int | None = None, kind: int = 0) -> bytes:
    sides = b"".join(struct.pack("<Q", side) for side in shape)
    return text("t") + struct.pack("<I", len(shape) if dims is None else dims) + sides + struct.pack("<IQ", kind, 0)


def llama(**metadata: object) -> GgufFile:
    given = {f"llama.{key.replace('__', '.')}": value for key, value in metadata.items()}
    return GgufFile(Path("x.gguf"), {"general.architecture": "llama", **given}, {})


def safetensors(folder: Path, header: object) -> None:
    written = json.dumps(header).encode()
    _check_header(file(folder, struct.pack("<Q", len(written)) + written))


def planned() -> object:
    one_layer = ModelInfo("tiny", "llama", 1, 8, 16, (1,), (1,), 1, 0, False, False)
    return make_plan(one_layer, [Device("desk"), Device("lamp")])


def claimed() -> object:
    header = pb.Header()
    header.claims.add(id="value-1", token="no number")
    return codec._claims(header)


def exchanged(message: bytes) -> bytes:
    from spake2 import SPAKE2_A

    side = SPAKE2_A(b"code")
    side.start()
    return _finish(side, message)


def supervised() -> Any:
    one = object.__new__(_Supervising)
    one._names = ("a", "b")
    return one


def in_environment(variable: str, value: str, call: Callable[[], object]) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(variable, value)
        return call()


class Half:
    def __actor_save__(self) -> object:
        return None


DOUBLE = Spec("numpy", "float64", (1,), np.dtype("float64"), np.dtype("float64"))
queue = object.__new__(Queue)  # refused before its actor is looked for

REFUSED: list[tuple[Callable[[Path], object], str]] = [
    # statements about trust, from anybody
    (lambda _: Statement.from_plain({}), "a statement about trust has other fields than it should"),
    (lambda _: statement(kind="nonsense"), "a statement about trust has a field of the wrong kind"),
    (lambda _: statement(author="x"), "a statement about trust names no device or no cluster"),
    (lambda _: statement(keep=["x"]), "a statement about trust keeps something that is no addition"),
    (lambda _: statement(signature="!"), "a statement about trust has no signature that can be read"),
    (lambda _: statement(signature="é"), "a statement about trust has no signature that can be read"),
    (lambda _: too_many(), "5001 statements about trust are more than 5000"),
    (
        lambda _: let_in_again(),
        "that device was removed from this cluster; `actors leave` there gives it a new key",
    ),
    (lambda _: statements_of(b" " * (LARGEST_BYTES + 1)), "it is too large"),
    (lambda _: statements_of(b"{"), "it is not JSON"),
    (lambda _: statements_of(b"{}"), "it is not a list of statements"),
    (lambda folder: kept(folder, "[]", 0o622), "others can write to "),
    (
        lambda folder: kept(folder, "{}"),
        "is damaged (it is not a list of statements); run `actors leave` and pair again",
    ),
    # keys and bundles
    (Identity.load, "cannot read this device's identity from "),
    (
        lambda _: Identity.parse(desk().certificate + lamp().private_key),
        "its private key belongs to another certificate",
    ),
    (lambda folder: Bundle.read(folder / "none"), "none: No such file or directory"),
    (
        lambda folder: Bundle.read(file(folder, b"{}")),
        "is no trust bundle: `actors invite --bundle FILE` makes one",
    ),
    # what another device says while it is paired
    (lambda _: Keys(b"shared", b"salt").open("card", bytes(40)), "a sealed message cannot be opened"),
    (lambda _: exchanged(b"nonsense"), "the other device sent a message that is no part of the exchange"),
    (lambda _: bytes_in({"sealed": "é"}, "sealed"), "the other device sent a message whose sealed cannot be read"),
    (lambda _: text_in({"sealed": 3}, "sealed"), "the other device sent a message without sealed"),
    # what comes over the wire
    (lambda _: codec._calls(pb.CommData(buffers=[b"x"]), pb.Header(sizes=[1, 2])), "2 calls came with 1 arguments"),
    (lambda _: codec._replies(pb.CommData(buffers=[b"x"]), pb.Header(sizes=[1, 2])), "2 replies came with 1 values"),
    (lambda _: claimed(), "a claim to a value or an actor says not whose it is, or has no token"),
    (lambda _: Assembly((2**62,)), f"there is no room anywhere for a transfer of {2**62} bytes"),
    (lambda _: Part("json", b"{").value(), "an argument is no json_data: Expecting"),
    (lambda _: _part(pb.CommData()), "an argument has no data: set tensor_data, numpy_data or json_data"),
    (
        lambda _: arrays.check_tensor(0, (2**31 - 1,) * 3, "float32"),
        f"shape {[2**31 - 1] * 3} is too large: more than ",
    ),
    (lambda _: arrays.check_tensor(3, (1,), "float32"), "shape [1] of float32 takes 4 bytes, but 3 came"),
    # files of models
    (lambda folder: read_header(folder / "none"), "the model file "),
    (lambda folder: gguf(folder, version=9), "is GGUF of version 9; versions 2 and 3 (little-endian) can be read"),
    (lambda folder: gguf(folder, entry(4)), "is truncated or damaged: its header asks for 4 bytes at "),
    (lambda folder: gguf(folder, entry(77)), "is damaged: metadata of unknown type 77. Fetch it again"),
    (
        lambda folder: gguf(folder, entry(9, struct.pack("<I", 77))),
        "is damaged: a metadata array of unknown type 77. Fetch it again",
    ),
    (
        lambda folder: gguf(folder, entry(4, struct.pack("<I", 0))),
        "is damaged: its alignment is 0. Fetch it again",
    ),
    (
        lambda folder: gguf(folder, tensors=(tensor(1, dims=9),)),
        "is damaged: tensor 't' has 9 dimensions. Fetch it again",
    ),
    (lambda folder: gguf(folder, tensors=(tensor(0),)), "is damaged: tensor 't' of type F32 has the shape (0,)"),
    (lambda folder: gguf(folder, tensors=(tensor(4),)), "is truncated: tensor 't' ends at byte "),
    (
        lambda _: llama_config(llama(attention__head_count=3, embedding_length=12, attention__head_count_kv=2)),
        "x.gguf is damaged: 3 heads cannot share 2 heads of keys and values",
    ),
    (
        lambda _: _rope_scaling(llama(rope__scaling__type="yarn")),
        "x.gguf: rotary position scaling of type 'yarn' is not supported, only linear",
    ),
    (
        lambda _: _number(llama(embedding_length=0), "embedding_length"),
        "x.gguf: the metadata llama.embedding_length is 0, a positive number is needed",
    ),
    (lambda folder: _read_json(folder / "config.json"), "holds no model: there is no config.json in it"),
    (lambda folder: _read_json(file(folder, b"{", "config.json")), "config.json cannot be read: Expecting"),
    (lambda folder: _read_json(file(folder, b"[]", "config.json")), "config.json should hold a JSON object"),
    (
        lambda folder: safetensors(folder, {"a": {"data_offsets": [0, 100]}}),
        "is truncated: 'a' ends at byte ",
    ),
    (lambda folder: safetensors(folder, {"a": 3}), "is damaged: its header makes no sense ("),
    (lambda folder: _inside(folder, "../a"), "the sender of the weights has a file '../a', which is no plain name"),
    # plans and requests
    (lambda _: partition([], [1.0]), "0 layers cannot be cut into 1 stages; both must be at least 1"),
    (
        lambda _: partition([1.0], [1.0], nbytes=[1], capacities=[-1]),
        "capacities must be 0 or more, they are [-1]",
    ),
    (lambda _: planned(), "tiny cannot be planned: 2 stages for 1 layers: a stage needs at least one layer"),
    (lambda _: actors.models.Pipeline([abs], costs=[1, 2]), "there are 2 costs for 1 layers"),
    (lambda _: Sampling(seed=-1), "seed is -1; it must be None or a whole number from 0, below 2**64"),
    (
        lambda _: Request((5,), 1, Sampling()).check_vocabulary(3),
        "token 5 is not in the vocabulary, which has the ids 0 to 2",
    ),
    (
        lambda _: actors.models.ShardedModel.load("nowhere", max_requests=0),
        "max_requests is 0; it must be a whole number from 1",
    ),
    # records of calls
    (lambda folder: Recording(file(folder, b"")), "file is no record of an actor's calls"),
    (
        lambda folder: Recording(file(folder, b'{"entry": "actor", "format": 0, "sizes": []}\n')),
        "is no record of an actor's calls, or one of another version of this package",
    ),
    (Recording, "cannot be read: Is a directory"),
    # methods and classes of a user's
    (
        lambda _: iterator(3, "Counter.add"),  # type: ignore[arg-type]
        "Counter.add was called as a stream and returned a int, which is no iterable",
    ),
    (
        lambda _: several(3, 2, "Counter.add"),  # type: ignore[arg-type]
        "Counter.add: expected 2 returned values, got one int, which is no iterable",
    ),
    (
        lambda _: checkpoint_of(Half, ActorOptions()),
        "Half has __actor_save__ and no __actor_load__: state needs both, one to take it, one to set it",
    ),
    (lambda _: supervised().child("c"), "there is no child 'c'; there are: a, b"),
    (lambda _: object.__new__(RuntimeContext).nonsense, "the runtime context has no 'nonsense'; there are: "),
    # arguments
    (lambda _: queue.put_nowait_batch(3), "items must be an iterable, not 3"),  # type: ignore[arg-type]
    (lambda _: queue.get_nowait_batch("3"), "num_items must be a whole number, not '3'"),  # type: ignore[arg-type]
    (lambda _: queue.get_nowait_batch(-1), "num_items must not be negative: -1"),
    (lambda _: _patience(block=True, timeout=-1), "timeout must not be negative: -1"),
    (lambda _: Costs(near_rate=0), "near_rate must be a positive number, not 0"),
    (
        lambda _: check_ring(Offer("allreduce", "sum", specs=(DOUBLE,))),
        "backend='mlx' does not reduce float64: it takes ",
    ),
    (lambda _: in_environment("RANK", "one", GRPCCommunicator().init), "RANK is 'one': it must be a number"),
    (
        lambda _: in_environment("ACTORS_HOME", "here", partial(actors.init, "local")),
        "ACTORS_HOME must be an absolute path, not 'here'; set it to ",
    ),
]


@pytest.mark.parametrize(("wrong", "words"), [pytest.param(*each, id=each[1][:60]) for each in REFUSED])
def test_it_is_refused_in_words(wrong: Callable[[Path], object], words: str, tmp_path: Path) -> None:
    with pytest.raises((ActorsError, ValueError, TypeError, AttributeError)) as caught:
        wrong(tmp_path)
    assert words in str(caught.value)
    assert not actors.is_initialized()


def test_a_wait_on_the_thread_that_would_end_it_is_refused() -> None:
    from actors.transport.portal import Portal

    portal = Portal()

    async def waits() -> None:
        portal.run(nothing())

    async def nothing() -> None:
        pass

    try:
        with pytest.raises(
            RuntimeError, match="a blocking call on the I/O thread would never return; await it instead"
        ):
            portal.run(waits(), 10)
    finally:
        portal.close()


def test_memory_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    from actors.arena import Arena

    tmp_path.chmod(0o700)
    arena = Arena(tmp_path, "maker")
    with pytest.raises(ValueError, match=r"'\.\./a' is no name of shared memory"):
        arena.link("../a")
    stored = arena.store([memoryview(bytes(1 << 20))])
    assert stored is not None
    (lent,) = arena.lend(stored)
    with pytest.raises(ValueError, match=r" has \d+ bytes of shared memory, not "):
        Arena(tmp_path, "reader").take([replace(lent, size=1 << 30)])


def test_commands_at_a_device_that_is_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from actors.cli.main import actors as command

    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("ACTORS_HOME", str(home))
    bundle = file(tmp_path, b"the one key", "bundle")
    for words, said in (
        (
            ("launch", "-n", "2", "--nodes", " , ", __file__),
            "--nodes names no node: give names with commas between, or 'all'",
        ),
        (("revoke", "desk"), "this device is in no cluster"),
        (("invite", "--bundle", str(bundle), "--name", "lamp"), "exists already: it may be the one key of a device"),
        (("invite", "--bundle", str(home / "none" / "lamp")), "cannot write "),
    ):
        done = CliRunner().invoke(command, words)
        assert done.exit_code != 0
        assert said in done.output + str(done.exception)
    assert bundle.read_bytes() == b"the one key"
    assert '"members": []' in CliRunner().invoke(command, ("status", "--json")).output  # nobody whose key is nowhere
