"""Weights that are sent: only what a stage needs, checked, kept, gone on with and mended."""

from __future__ import annotations

from dataclasses import replace

import pytest

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

from test_models_cut import Chain  # noqa: E402
from tiny_models import make_directory, make_gguf, whole_directory, whole_tokens  # noqa: E402

from actors.exceptions import ActorDiedError, ModelError  # noqa: E402
from actors.models import StageModel, describe  # noqa: E402
from actors.models.ledger import Piece, kept  # noqa: E402
from actors.models.stock import Stock  # noqa: E402
from actors.models.weights import Library, fetch  # noqa: E402

PROMPT = [3, 141, 59, 26, 53]


class Counted:
    """A source that counts, and damages what it is told to."""

    def __init__(self, path, damaged=0):
        self.library, self.asked, self.damaged = Library(str(path)), [], damaged

    def manifest(self, first, last):
        return self.library.manifest(first, last)

    def pieces(self):
        return self.library.pieces()

    def read(self, piece: Piece):
        self.asked.append(piece)
        data = self.library.read(piece)
        if self.damaged:
            self.damaged -= 1
            return bytes(len(data))
        return data

    @property
    def nbytes(self):
        return sum(piece.size for piece in self.asked)


@pytest.fixture(params=["directory", "gguf"])
def path(request, tmp_path):
    wide = {"hidden_size": 256, "num_attention_heads": 16, "intermediate_size": 1024}
    made = make_directory(tmp_path / "source", num_hidden_layers=8, **wide)
    return made if request.param == "directory" else make_gguf(tmp_path / "tiny.gguf", made)


def test_a_stage_gets_its_layers_alone_and_they_are_right(path, tmp_path):
    source = Counted(path)
    first, last = (fetch([source], *layers, tmp_path / "there") for layers in ((0, 2), (3, 7)))
    stages = [StageModel.load(first, 0, 2), StageModel.load(last, 3, 7)]
    chain = Chain(path, [])
    chain.stages = stages
    whole = whole_directory(tmp_path / "source")
    assert chain.generate("a", PROMPT, 8) == whole_tokens(whole, PROMPT, 8)
    alone = Counted(path)
    fetch([alone], 3, 4, tmp_path / "elsewhere")
    assert alone.nbytes < 0.45 * source.nbytes


def test_what_is_there_is_not_sent_again_and_what_is_damaged_is(path, tmp_path):
    fetch([Counted(path)], 0, 7, tmp_path)
    again = Counted(path)
    found = fetch([again], 0, 7, tmp_path)
    assert again.asked == []
    file = found if found.is_file() else found / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255
    file.write_bytes(data)
    mending = Counted(path)
    fetch([mending], 0, 7, tmp_path)
    assert len(mending.asked) == 1
    assert bytes(file.read_bytes()) == (path if path.is_file() else path / "model.safetensors").read_bytes()


def test_a_piece_that_arrives_damaged_is_asked_for_again_but_not_for_ever(path, tmp_path):
    fetch([Counted(path, damaged=2)], 0, 1, tmp_path / "mended")
    with pytest.raises(ModelError, match="arrived damaged 3 times"):
        fetch([Counted(path, damaged=10_000)], 0, 1, tmp_path / "hopeless")


class Gone(Counted):
    """A source that ends after some pieces."""

    def __init__(self, path, after):
        super().__init__(path)
        self.after = after

    def read(self, piece: Piece):
        if len(self.asked) >= self.after:
            raise ActorDiedError("its node was switched off")
        return super().read(piece)


def test_pieces_come_from_all_who_have_them_and_from_the_others_when_one_is_gone(path, tmp_path):
    sources, told = [Counted(path), Gone(path, 1), Counted(path, damaged=1)], []
    found = fetch(sources, 0, 7, tmp_path / "there", lambda *how: told.append(how))
    assert all(source.asked for source in sources)
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]
    file = found if found.is_file() else found / "model.safetensors"
    assert file.read_bytes() == (path if path.is_file() else path / "model.safetensors").read_bytes()
    with pytest.raises(ModelError, match=r"nobody who has the weights can give them out any more: .*switched off"):
        fetch([Gone(path, 0), Gone(path, 1)], 0, 7, tmp_path / "nowhere")


class Kept(Counted):
    """A node that was sent some layers."""

    def __init__(self, folder, monkeypatch):
        monkeypatch.setattr("actors.models.ledger.weights_dir", lambda: folder)
        (key,) = kept("tiny")
        self.library, self.asked, self.damaged = Stock(key), [], 0


def test_what_nodes_were_sent_they_give_to_others_also_when_the_first_one_is_gone(path, tmp_path, monkeypatch):
    for name, layers in ("one", (0, 4)), ("two", (4, 7)), ("three", (4, 7)):
        fetch([Counted(path)], *layers, tmp_path / name, model="tiny")
    one, two, three = (Kept(tmp_path / name, monkeypatch) for name in ("one", "two", "three"))
    first = Gone(path, 1)
    helped = fetch([first, one, two], 3, 5, tmp_path / "helped")
    assert all(source.asked for source in (first, one, two))
    whole = fetch([one, two], 0, 7, tmp_path / "whole")
    stages = [StageModel.load(whole, 0, 2), StageModel.load(helped, 3, 5), StageModel.load(whole, 6, 7)]
    chain = Chain(path, [])
    chain.stages = stages
    assert chain.generate("a", PROMPT, 8) == whole_tokens(whole_directory(tmp_path / "source"), PROMPT, 8)
    assert describe(fetch([two], folder=tmp_path / "headers")).layers == 8
    with pytest.raises(ModelError, match="nobody has all that layers 0 to 7 need: no device that has the whole model"):
        fetch([two, three], 0, 7, tmp_path / "partly")
    assert kept("other") == []


def test_a_program_without_the_model_needs_its_headers_alone(path, tmp_path):
    source = Counted(path)
    found = fetch([source], folder=tmp_path / "headers")
    told, real = describe(found), describe(path)
    assert replace(told, path="") == replace(real, path="")
    assert source.nbytes < 0.05 * real.nbytes
