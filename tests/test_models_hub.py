"""Models on the hub, by its own client: ranges alone, kept, gone on with, checked; and what is said where it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

from hub import COMMIT, TOKEN, served  # noqa: E402
from huggingface_hub.utils import close_session  # noqa: E402
from serving import MAIN, talkative  # noqa: E402
from test_models_cut import Chain  # noqa: E402
from test_models_weights import Counted  # noqa: E402
from tiny_models import make_directory, make_gguf, whole_directory, whole_tokens  # noqa: E402

from actors.exceptions import ModelError  # noqa: E402
from actors.models import StageModel, describe, ledger, load_tokenizer  # noqa: E402
from actors.models.hub import Hub, HubName, Listing, skeleton  # noqa: E402
from actors.models.source import locate, on_hub  # noqa: E402
from actors.models.stock import Stock, complete  # noqa: E402
from actors.models.weights import fetch  # noqa: E402

PROMPT = [3, 141, 59, 26, 53]
WIDE = {"hidden_size": 128, "num_attention_heads": 8, "intermediate_size": 512}


READERS = []


def reader(name, kind=Hub):
    READERS.append(kind(name))
    return READERS[-1]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one model as a directory and as a file, asked by this process; nothing is in any cache."""
    source = make_directory(tmp_path / "source", num_hidden_layers=8, **WIDE)
    files = tmp_path / "files"
    files.mkdir()
    make_gguf(files / "tiny.gguf", source)
    with served({"tiny/wide": source, "tiny/files": files}) as hub:
        ask(monkeypatch, hub.url, tmp_path)
        yield hub
        while READERS:
            READERS.pop()._pool.shutdown(cancel_futures=True)
        close_session()


def ask(monkeypatch, url, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("actors.models.ledger.weights_dir", lambda: tmp_path / "kept")
    monkeypatch.setattr("actors.models.spans._SMALL", 10_000)  # bytes of a tensor that all stages get
    monkeypatch.setattr("actors.models.hub._FIRST", 1000)  # bytes of a file's header at first
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)  # between two tries


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("org/model", HubName("org/model")),
        ("hf://org/model@v1.0", HubName("org/model", "v1.0")),
        ("org/model/part/x.Q4_0.gguf", HubName("org/model", None, "part/x.Q4_0.gguf")),
        (f"hf://org/model@{COMMIT}/x.gguf", HubName("org/model", COMMIT, "x.gguf")),
        ("org", None),
        ("/org/model", None),
        ("org/../model.gguf", None),
        ("org/model/other", None),
    ],
)
def test_names_are_read_and_written(text, name):
    assert HubName.read(text) == name
    if name is not None and name.revision is not None:
        assert str(name) == text


@pytest.mark.parametrize("called", ["tiny/wide", "tiny/files/tiny.gguf"])
def test_a_stage_fetches_its_layers_alone_and_they_are_right(hub, tmp_path, called):
    name = locate(called)
    assert HubName.read(name).revision == COMMIT
    headers = hub.nbytes
    weights = sum(describe(skeleton(HubName.read(name))).layer_nbytes)
    assert headers < 0.05 * weights
    hub.asked.clear()
    first = fetch([], 0, 2, tmp_path / "one", hubs=[reader(name)], model=name)
    last = fetch([], 3, 7, tmp_path / "two", hubs=[reader(name)], model=name)
    chain = Chain(first, [])
    chain.stages = [StageModel.load(first, 0, 2), StageModel.load(last, 3, 7)]
    assert chain.generate("a", PROMPT, 8) == whole_tokens(whole_directory(tmp_path / "source"), PROMPT, 8)
    assert hub.nbytes < 1.05 * describe(tmp_path / "source").nbytes
    hub.asked.clear()
    fetch([], 3, 4, tmp_path / "three", hubs=[reader(name)], model=name)
    assert hub.nbytes < 0.3 * weights


def test_what_is_there_is_not_fetched_again_and_what_is_damaged_is(hub, tmp_path):
    name = locate("tiny/wide")
    fetch([], 0, 7, hubs=[reader(name)], model=name)
    there = complete(name, 0, 7)
    hub.asked.clear()
    assert complete(name, 2, 3) == there
    fetch([], 0, 7, hubs=[reader(name)], model=name)
    assert hub.asked == []
    file, right = there / "model.safetensors", (tmp_path / "source" / "model.safetensors").read_bytes()
    data = bytearray(right)
    data[len(data) // 2] ^= 255
    file.write_bytes(data)
    assert complete(name, 0, 7) is None
    assert complete(name, 0, 0) == there
    fetch([], 0, 7, hubs=[reader(name)], model=name)
    assert (len(hub.asked), file.read_bytes()) == (1, right)
    (there / "config.json").write_text("{}")
    assert describe(skeleton(HubName.read(name))).layers == 8


class Ended(Hub):
    """A hub that is gone after some pieces."""

    left = 5

    def read(self, piece):
        self.left -= 1
        if self.left < 0:
            raise ModelError("the cable was pulled")
        return super().read(piece)


def test_an_interrupted_fetch_goes_on_where_it_was(hub):
    name = locate("tiny/wide")
    hub.asked.clear()
    with pytest.raises(ModelError, match="nobody who has the weights can give them out any more: the cable was pulled"):
        fetch([], 0, 7, hubs=[reader(name, Ended)], model=name)
    stock = Stock(ledger.kept(name)[0])
    there = {(name, start, start + size - 1) for name, start, size in (piece.place for piece in stock.pieces())}
    assert there & set(hub.asked)
    hub.asked.clear()
    fetch([], 0, 7, hubs=[reader(name)], model=name)
    assert hub.asked
    assert not there & set(hub.asked)


def test_answers_that_break_off_are_asked_for_again(hub, tmp_path):
    name = locate("tiny/wide")
    hub.broken = 2
    found = fetch([], 0, 7, hubs=[reader(name)], model=name)
    assert hub.broken == 0
    assert (found / "model.safetensors").read_bytes() == (tmp_path / "source" / "model.safetensors").read_bytes()


def test_what_other_nodes_were_sent_is_not_fetched_from_the_hub(hub, tmp_path, monkeypatch):
    name = locate("tiny/wide")
    monkeypatch.setattr("actors.models.ledger.weights_dir", lambda: tmp_path / "other")
    folder = fetch([], 0, 4, hubs=[reader(name)], model=name)
    other = Counted(tmp_path / "source")
    other.library = Stock(folder.name)
    monkeypatch.setattr("actors.models.ledger.weights_dir", lambda: tmp_path / "kept")
    hub.asked.clear()
    found = fetch([other], 0, 7, hubs=[reader(name)], model=name)
    assert (found / "model.safetensors").read_bytes() == (tmp_path / "source" / "model.safetensors").read_bytes()
    assert other.asked
    assert hub.nbytes < 0.6 * describe(tmp_path / "source").nbytes


def test_a_model_that_was_fetched_is_there_without_the_hub(hub, tmp_path, monkeypatch):
    name = locate("tiny/wide")
    ask(monkeypatch, "http://127.0.0.1:9", tmp_path)
    assert on_hub("tiny/wide") == (name, skeleton(HubName.read(name)))
    assert on_hub(f"tiny/wide@{COMMIT}") == on_hub("tiny/wide")
    with pytest.raises(
        ModelError, match=r"the Hugging Face hub at http://127.0.0.1:9 cannot be reached \(ConnectError"
    ):
        on_hub("tiny/other")
    with pytest.raises(ModelError, match="cannot be reached"):
        on_hub("tiny/wide@v2")
    with pytest.raises(ModelError, match=r"can give them out any more: the Hugging Face hub at .* cannot be reached"):
        fetch([], 0, 7, hubs=[reader(name)], model=name)


def test_a_model_in_the_hubs_own_cache_is_read_there(hub, tmp_path, monkeypatch):
    from huggingface_hub import snapshot_download

    folder = snapshot_download("tiny/wide")
    hub.asked.clear()
    assert locate("tiny/wide") == folder
    ask(monkeypatch, "http://127.0.0.1:9", tmp_path)
    assert locate("tiny/wide") == folder
    assert hub.asked == []


def test_what_the_hub_does_not_give_is_told(hub, tmp_path, monkeypatch):
    for called, said in [
        (
            "tiny/nothing",
            r"there is no http://.*/tiny/nothing, or it is private: then run `hf auth login` on this device",
        ),
        ("tiny/wide@v9", "tiny/wide has no revision v9; see http"),
        (
            "tiny/files",
            r"has no model\*.safetensors, but .gguf files: name one of them; it has tiny.gguf. Say tiny/files/F",
        ),
        ("tiny/wide/x.gguf", "tiny/wide on the Hugging Face hub has no x.gguf; it has none"),
    ]:
        with pytest.raises(ModelError, match=said):
            locate(called)
    hub.gated.add("tiny/wide")
    with pytest.raises(
        ModelError, match=r"tiny/wide is gated: ask for access at http.*/tiny/wide, then run `hf auth lo"
    ):
        locate("tiny/wide")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert locate("tiny/wide").startswith("hf://tiny/wide@")


def test_damaged_files_on_the_hub_are_told(hub, tmp_path):
    hub.changed.add("config.json")
    with pytest.raises(ModelError, match=r"config.json of .* arrived damaged 3 times from the Hugging Face hub"):
        locate("tiny/wide")
    hub.changed.clear()
    file = tmp_path / "source" / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ModelError, match=r"hf://tiny/wide@.* on the Hugging Face hub cannot be used: model.safetensors i"
    ):
        locate("tiny/wide")
    file.write_bytes(b"abc")
    with pytest.raises(ModelError, match=r"model.safetensors is truncated or no safetensors file"):
        locate("tiny/wide")
    (tmp_path / "source" / "config.json").write_text("[")
    with pytest.raises(ModelError, match=r"config.json cannot be read"):
        locate("tiny/wide")
    (tmp_path / "files" / "tiny.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelError, match=r"tiny.gguf is GGUF of version 0"):
        locate("tiny/files/tiny.gguf")


def test_a_file_that_has_become_shorter_on_the_hub_is_told(hub, tmp_path):
    name = locate("tiny/wide")
    file = tmp_path / "source" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"the Hugging Face hub sent \d+ bytes of model.safetensors of .* on, not \d+"):
        fetch([], 0, 7, hubs=[reader(name)], model=name)


def test_a_place_that_cannot_be_written_is_told(hub, tmp_path, monkeypatch):
    (tmp_path / "taken").touch()
    monkeypatch.setattr("actors.models.ledger.weights_dir", lambda: tmp_path / "taken" / "weights")
    with pytest.raises(ModelError, match=r"^hf://tiny/wide@\w+ cannot be kept in .*taken/weights: "):
        locate("tiny/wide")


def test_pieces_without_digests_are_those_of_a_stage_alone(hub):
    name = locate("tiny/wide")
    hub_pieces = Hub(name).manifest(0, 3)
    local = Counted(hub.models["tiny/wide"]).manifest(0, 3)
    assert (hub_pieces.key, hub_pieces.files) == (local.key, local.files)
    assert [replace(each, digest=b"") for each in local.pieces] == [
        replace(each, digest=b"") for each in hub_pieces.pieces
    ]
    assert Listing.ask(HubName("tiny/wide")).name.revision == COMMIT


PROGRAM = """
import psutil, actors

with actors.init("local", local_nodes=3), actors.models.ShardedModel.load("tiny/talk") as model:
    tokens = model.tokens("hello", max_tokens=40)
    got = [next(tokens)]
    print("loaded", flush=True)
    input()  # the hub is gone
    psutil.Process(model.status()["stages"][1]["pid"]).kill()
    print(got + list(tokens), flush=True)
"""


@pytest.fixture
def talking(tmp_path):
    """A hub with a model that has a tokenizer, and what a process must know to ask it, with caches of its own."""
    path = talkative(tmp_path)
    with served({"tiny/talk": path}) as hub:
        own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "ACTORS_HOME": str(tmp_path / "home")}
        yield hub, {**os.environ, **own}


def expected(hub, count):
    path = hub.models["tiny/talk"]
    return whole_tokens(whole_directory(path), load_tokenizer(path).encode("hello"), count)


@pytest.mark.slow
def test_commands_take_models_by_their_names_on_the_hub(talking):
    hub, environment = talking
    command = [sys.executable, "-c", MAIN, "generate", "tiny/talk", "hello", "--max-tokens", "8", "--json"]
    said = {"capture_output": True, "text": True, "timeout": 120, "env": environment}
    for nodes, fetched in (2, True), (1, False), (3, False):
        if nodes == 3:
            hub.end()
        done = subprocess.run([*command, "--local-nodes", str(nodes)], check=False, **said)
        assert done.returncode == 0, done.stderr
        assert ("each node fetches what it lacks" in done.stderr) == (nodes != 3)
        told = json.loads(done.stdout)
        assert (told["tokens"], len(told["stages"])) == (expected(hub, 8), nodes)
        assert bool(hub.asked) == fetched
        hub.asked.clear()


@pytest.mark.slow
def test_answers_go_on_when_a_stage_dies_and_the_hub_is_gone(talking):
    hub, environment = talking
    command = [sys.executable, "-c", PROGRAM]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as program:
        try:
            assert program.stdout.readline() == "loaded\n"
            hub.end()
            out, _ = program.communicate("\n", timeout=60)
        finally:
            program.kill()
    assert json.loads(out) == expected(hub, 40)
