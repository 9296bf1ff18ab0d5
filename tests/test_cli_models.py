"""`actors generate` and `actors chat`, as a person and a program use them."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading

import pytest

pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

from clusters import eventually
from serving import MAIN, talkative
from test_models_tokenizer import metadata
from tiny_models import make_gguf, whole_directory, whole_tokens

from actors.models import load_tokenizer


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return talkative(tmp_path_factory.mktemp("small"))


def run(*arguments, text="", **environment):
    """Status, standard output and standard error of a command."""
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *map(str, arguments)],
        input=text, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **environment},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_generate_says_what_the_whole_model_says(path):
    status, out, err = run("generate", path, "hello", "--max-tokens", "12", "--local-nodes", "2", "--json")
    assert (status, err) == (0, "")
    told = json.loads(out)
    tokenizer = load_tokenizer(path)
    assert told["prompt_tokens"] == tokenizer.encode("hello")
    assert told["tokens"] == whole_tokens(whole_directory(path), told["prompt_tokens"], 12)
    assert told["text"] == tokenizer.decode(told["tokens"])
    assert (told["finish_reason"], len(told["stages"])) == ("length", 2)
    status, out, _ = run("generate", path, "-", "--max-tokens", "12", "--local-nodes", "1", text="hello")
    assert (status, out) == (0, told["text"] + "\n")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["generate", "nowhere.gguf", "hi"], 1, "there is no file or directory nowhere.gguf"),
        (["generate", "some/model", "hi"], 1, "no model of that name could be fetched from the Hugging Face hub"),
        (["generate", "demo", ""], 2, "PROMPT is empty"),
        (["generate", "demo"], 2, "Missing argument 'PROMPT'"),
        (["generate", "demo", "hi", "--temperature", "hot"], 2, "'hot' is not a valid float"),
        (["generate", "demo", "hi", "--local-nodes", "0"], 2, "--local-nodes"),
        (["generate", "demo", "hi", "--local-nodes", "65"], 2, "65 is not in the range 1<=x<=64"),
        (["chat", "demo", "--strategy", "magic"], 2, "'magic' is not one of"),
        (["serve", "nowhere.gguf"], 1, "there is no file or directory nowhere.gguf"),
        (["serve", "demo", "--port", "99999"], 2, "99999 is not in the range"),
        (["serve", "demo", "--api-key", " "], 2, "the API key is empty"),
        (["serve", "{path}", "--host", "nowhere.invalid"], 1, "cannot listen at nowhere.invalid, port 8080: "),
    ],
)
def test_wrong_use_is_told_before_anything_is_started(path, arguments, status, said):
    found, out, err = run(
        *(each.format(path=path) for each in arguments), HF_HUB_OFFLINE="1", ACTORS_DEMO_MODEL=os.devnull
    )
    assert (found, out) == (status, "")
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize("command", [["generate", "hi"], ["serve", "--port", "0"]])
def test_a_damaged_model_is_told_before_anything_is_started(tmp_path, command):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(100))
    status, out, err = run(command[0], tmp_path / "broken.gguf", *command[1:])
    assert (status, out) == (1, "")
    assert "broken.gguf" in err
    assert "Traceback" not in err


def test_chat_answers_each_line_that_is_piped_in(path):
    status, out, err = run(
        "chat", path, "--local-nodes", "1", "--temperature", "0", "--max-tokens", "5", text="hi\n\n/reset\nhi\n/what\n"
    )
    first, second = out.split("\n")[:2] if out.count("\n") == 2 else (out, None)
    assert (status, first) == (0, second)  # what was said before is forgotten
    assert "there is no /what. /reset begins anew" in err


def test_a_conversation_that_outgrows_the_model_says_so_and_can_be_begun_anew(path):
    room = json.loads((path / "config.json").read_text())["max_position_embeddings"]
    tokenizer = load_tokenizer(path)

    def length(text):
        return len(tokenizer.encode_chat([{"role": "user", "content": text}]))

    near = next("x" * count for count in range(room, 0, -1) if length("x" * count) <= room - 3)
    told = f"hi\n{'word ' * room}\n/reset\n{near}\n"
    status, out, err = run("chat", path, "--local-nodes", "1", "--temperature", "0", "--max-tokens", "9999", text=told)
    assert status == 0
    assert f"tokens, this model has room for {room}. /reset begins anew." in err
    assert f"cut off after {room - length(near)} tokens: the model has room for no more, /reset begins anew" in err
    assert out.strip()


@pytest.mark.slow
def test_chat_with_a_model_for_texts_is_refused(tmp_path):
    words = {key: value for key, value in metadata().items() if key.startswith("tokenizer.ggml.")}
    plain = make_gguf(tmp_path / "plain.gguf", talkative(tmp_path), **words)
    status, _, err = run("chat", plain, "--local-nodes", "1", text="hi\n")
    assert (status, "has no chat template" in err) == (1, True)


class Terminal:
    """A command at a terminal of its own."""

    def __init__(self, *arguments):
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", MAIN, *map(str, arguments)], stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, env={**os.environ, "TERM": "dumb"},
        )  # fmt: skip
        os.close(slave)
        self.shown = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        while True:
            try:
                piece = os.read(self._master, 4096)
            except OSError:  # Linux's way of saying that nobody writes any more
                piece = b""
            if not piece:
                return
            self.shown += piece.decode(errors="replace")

    def type(self, text):
        os.write(self._master, text.encode())

    def shows(self, text, times=1):
        eventually(lambda: self.shown.count(text) >= times, 60, f"{text!r} in {self.shown!r}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(10)
        self._reader.join(10)
        os.close(self._master)


@pytest.mark.slow
def test_chat_at_a_terminal_is_stopped_by_ctrl_c_and_ended_by_ctrl_d(path):
    with Terminal("chat", path, "--local-nodes", "1", "--max-tokens", "400", "--seed", "1") as terminal:
        terminal.shows("> ")
        assert "/reset begins anew" in terminal.shown
        terminal.type("hello\n")
        terminal.shows("hello\r\n")
        before = len(terminal.shown)
        eventually(lambda: len(terminal.shown) > before + 10, 60)
        os.killpg(terminal.process.pid, signal.SIGINT)
        terminal.shows("[stopped]")
        terminal.shows("> ", 2)
        terminal.type("\x04")
        assert terminal.process.wait(20) == 0
