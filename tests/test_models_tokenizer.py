from __future__ import annotations

import json

import pytest

pytest.importorskip("mlx_lm")

from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import BASE, llama_metadata, make_directory, write_gguf
from tokenizers import pre_tokenizers

from actors.exceptions import ModelError
from actors.models import load_tokenizer

TEXTS = [
    "Hello, world 12345!",
    "  two  spaces\n\n\tand a tab ",
    "na\u00efve caf\u00e9 \u2014 \u65e5\u672c\u8a9e \u4e2d\u6587 \ud55c\uad6d\uc5b4",
    "\u0939\u093f\u0928\u094d\u0926\u0940",
    "\U0001f389 \U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1eb\U0001f1f7 end",
    "",
]
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}!{% endif %}"
)


def metadata(**changes):
    """Byte-level pair encoding with all bytes, one merge, and two control tokens."""
    words = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "he", "\u0120he"]
    values = {
        **llama_metadata(BASE),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.token_type": [3, 3] + [1] * (len(words) - 2),
        "tokenizer.ggml.merges": ["h e", "\u0120 he"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.chat_template": TEMPLATE,
    } | {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    return {key: value for key, value in values.items() if value is not None}


def in_gguf(folder, **changes):
    return write_gguf(folder / "words.gguf", metadata(**changes), [])


@pytest.fixture(scope="module", params=["gguf", "directory"])
def tokenizer(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    path = in_gguf(folder)
    if request.param == "directory":
        load_tokenizer(path).inner._tokenizer.save_pretrained(str(folder))
        path = make_directory(folder, eos_token_id=[1, 5])
    return load_tokenizer(path)


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back_as_it_was(tokenizer, text):
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert "".join(tokenizer.stream(tokens)) == text


def test_control_tokens_end_answers_and_leave_no_text(tokenizer):
    assert 1 in tokenizer.stop_ids
    assert tokenizer.decode([0, *tokenizer.encode("he"), 1]) == "he"
    assert list(tokenizer.stream([0, *tokenizer.encode("he"), 1])) == ["he"]


def test_pieces_never_break_a_character(tokenizer):
    text = "\U0001f389\u65e5!"
    tokens = tokenizer.encode(text)
    assert len(tokens) == 8
    assert list(tokenizer.stream(tokens)) == ["\U0001f389", "\u65e5", "!"]
    assert list(tokenizer.stream(tokens[:2])) == [tokenizer.decode(tokens[:2])]  # cut short: told in the end


def test_a_conversation_goes_through_the_models_own_template(tokenizer):
    assert tokenizer.has_chat_template
    tokens = tokenizer.encode_chat([{"role": "user", "content": "he \U0001f389"}])
    assert tokenizer.decode(tokens) == "<|user|>he \U0001f389!"


def test_stop_tokens_of_a_directory_are_those_of_its_configuration(tmp_path):
    load_tokenizer(in_gguf(tmp_path)).inner._tokenizer.save_pretrained(str(tmp_path))
    make_directory(tmp_path, eos_token_id=[1, 5])
    assert load_tokenizer(tmp_path).stop_ids == {1, 5}


@pytest.fixture(scope="module")
def bytewise(tmp_path_factory):
    return load_tokenizer(in_gguf(tmp_path_factory.mktemp("bytes")))


@given(st.text(max_size=40))
@settings(deadline=None, max_examples=100)
def test_any_text_streams_as_itself(bytewise, text):
    tokens = bytewise.encode(text)
    if not set(tokens) & {0, 1}:
        assert "".join(bytewise.stream(tokens)) == text


@given(st.lists(st.integers(0, 259), max_size=60))
@settings(deadline=None, max_examples=200)
def test_any_tokens_stream_as_they_decode(bytewise, tokens):
    assert "".join(bytewise.stream(tokens)) == bytewise.decode(tokens)


def test_the_opening_token_comes_first_where_the_file_says_so(tmp_path):
    assert load_tokenizer(in_gguf(tmp_path, add_bos_token=True)).encode("he")[0] == 0
    assert load_tokenizer(in_gguf(tmp_path, add_bos_token=False)).encode("he")[0] != 0


def test_digits_are_kept_together_or_apart_by_the_files_rule(tmp_path):
    words = [*metadata()["tokenizer.ggml.tokens"], "12"]
    counts = {
        pre: len(load_tokenizer(in_gguf(tmp_path, pre=pre, tokens=words, merges=["1 2", "h e"])).encode("12"))
        for pre in ("gpt-2", "smollm", "llama-bpe")
    }
    assert counts == {"gpt-2": 1, "smollm": 2, "llama-bpe": 1}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokens": None}, "has no tokenizer in it"),
        ({"model": "llama"}, "a tokenizer of kind 'llama' is not supported in GGUF files"),
        ({"pre": "tekken"}, "splits text by the rule 'tekken', which is not known here; known: gpt-2, smollm"),
        ({"eos_token_id": 100_000}, "eos_token_id is 100000, which is not in the vocabulary"),
        ({"merges": ["x nothing"]}, "is damaged"),
        ({"merges": ["alone"]}, "is damaged"),
        ({"tokens": "words"}, "should be an array"),
    ],
)
def test_a_tokenizer_that_cannot_be_used_says_why(tmp_path, changes, said):
    with pytest.raises(ModelError, match=said):
        load_tokenizer(in_gguf(tmp_path, **changes))


def test_a_directory_without_a_tokenizer_says_so(tmp_path):
    with pytest.raises(ModelError, match="no tokenizer that can be loaded"):
        load_tokenizer(make_directory(tmp_path))
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        load_tokenizer(tmp_path / "nowhere.gguf")


def test_a_model_without_a_template_says_so(tmp_path):
    path = write_gguf(tmp_path / "a.gguf", {k: v for k, v in metadata().items() if "chat" not in k}, [])
    tokenizer = load_tokenizer(path)
    assert not tokenizer.has_chat_template
    with pytest.raises(ModelError, match="no chat template"):
        tokenizer.encode_chat([{"role": "user", "content": "hi"}])


def test_a_template_that_refuses_says_why(tmp_path):
    values = metadata() | {"tokenizer.chat_template": "{{ raise_exception('only the user speaks') }}"}
    tokenizer = load_tokenizer(write_gguf(tmp_path / "a.gguf", values, []))
    with pytest.raises(ModelError, match="only the user speaks"):
        tokenizer.encode_chat([{"role": "system", "content": json.dumps({})}])
