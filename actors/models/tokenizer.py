"""Text to tokens and back: the tokenizer that comes with a model, and text out of tokens as they arrive."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from actors.exceptions import ModelError

from .checkpoint import open_checkpoint
from .extra import require_mlx_lm
from .gguf import GgufFile, read_header
from .text import Detokenizer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

_CONTROL, _USER_DEFINED = 3, 4
_LLAMA3_WORDS: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_QWEN2_WORDS: Final = _LLAMA3_WORDS.replace(r"\p{N}{1,3}", r"\p{N}")
# How text is cut before pairs are merged, by GGUF's names for it.
_SINGLE_DIGITS: Final = ("smollm", "starcoder", "refact", "command-r")
_LLAMA3: Final = ("llama-bpe", "llama3", "llama-v3")
_QWEN2: Final = ("qwen2", "deepseek-r1-qwen")
_PLAIN: Final = ("gpt-2",)


class Tokenizer:
    """A model's tokenizer. Make one with `load_tokenizer`.

    Attributes:
        inner: mlx-lm's wrapper of the one that transformers gives.
        stop_ids: tokens that end an answer.
    """

    def __init__(self, inner: Any, stop_ids: Collection[int]) -> None:
        self.inner = inner
        self.stop_ids = frozenset(stop_ids)

    @property
    def has_chat_template(self) -> bool:
        """Whether the model was made for conversations, and says how they are written."""
        return bool(self.inner.has_chat_template)

    def encode(self, text: str) -> list[int]:
        """Tokens of a text as it is, with the opening token if the model wants one."""
        return [int(token) for token in self.inner.encode(text)]

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **settings: Any,
    ) -> list[int]:
        """Tokens of a conversation, each message with `role` and `content`, up to where the answer begins.

        Args:
            messages: the conversation.
            tools: functions that the model may call, as OpenAI's interface describes them; for templates that know
                of them.
            settings: what else the model's template looks at, such as `enable_thinking`.

        Raises:
            ModelError: the model has no chat template, or its template refuses these messages.
        """
        if not self.has_chat_template:
            raise ModelError("this model has no chat template; give it plain text to go on from")
        if tools:
            settings["tools"] = [dict(each) for each in tools]
        try:
            tokens = self.inner.apply_chat_template(
                [dict(each) for each in messages], add_generation_prompt=True, **settings
            )
        except Exception as error:  # a template is a program that came with the model: it raises what it likes
            raise ModelError(f"the model's chat template refuses these messages: {error}") from error
        return [int(token) for token in tokens]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without those that only control the model."""
        text: str = self.inner.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """Text as tokens arrive, never a part of a character; joined, the pieces are `decode` of all tokens."""
        text = Detokenizer(self)
        for token in tokens:
            if piece := text.add(token):
                yield piece
        if rest := text.rest():
            yield rest


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of the model at `path`: from a `.gguf` file's own metadata, or from the files of a directory.

    Raises:
        ModelError: there is none, or none that can be used.
    """
    require_mlx_lm()
    path = Path(path).expanduser()
    return _of_directory(path) if path.is_dir() else _of_gguf(path)


def _of_directory(path: Path) -> Tokenizer:
    from mlx_lm.tokenizer_utils import load
    from mlx_lm.utils import load_config

    open_checkpoint(path)  # says more plainly than transformers does that a directory holds no model
    try:
        inner = load(path, eos_token_ids=load_config(path).get("eos_token_id"))
    except Exception as error:  # transformers raises anything over files it cannot make sense of
        raise ModelError(f"{path} has no tokenizer that can be loaded: {error}") from error
    return Tokenizer(inner, inner.eos_token_ids)


def _of_gguf(path: Path) -> Tokenizer:
    from mlx_lm.tokenizer_utils import TokenizerWrapper
    from transformers import PreTrainedTokenizerFast

    file = read_header(path)
    words = file.array("tokenizer.ggml.tokens")
    if not words:
        raise ModelError(f"{path} has no tokenizer in it")
    names = {role: _word(file, words, f"{role}_token_id") for role in ("bos", "eos", "unknown", "padding")}
    try:
        core = _byte_level(file, words)
        _add_special(core, words, file.array("tokenizer.ggml.token_type"))
        if file.metadata.get("tokenizer.ggml.add_bos_token", False) and names["bos"]:
            _open_with(core, names["bos"])
    except ModelError:
        raise
    except Exception as error:  # the tokenizers library has no exception of its own
        raise ModelError(f"the tokenizer in {path} is damaged: {error}") from error
    inner = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        bos_token=names["bos"],
        eos_token=names["eos"],
        unk_token=names["unknown"],
        pad_token=names["padding"],
        clean_up_tokenization_spaces=False,
    )
    template = file.metadata.get("tokenizer.chat_template")
    inner.chat_template = template if isinstance(template, str) else None
    stop_ids = {file.metadata.get(f"tokenizer.ggml.{role}_token_id") for role in ("eos", "eot", "eom")}
    return Tokenizer(TokenizerWrapper(inner), {each for each in stop_ids if isinstance(each, int)})


def _word(file: GgufFile, words: Sequence[str], key: str) -> str | None:
    number = file.metadata.get(f"tokenizer.ggml.{key}")
    if number is None:
        return None
    if not isinstance(number, int) or not 0 <= number < len(words):
        raise ModelError(f"{file.path}: {key} is {number!r}, which is not in the vocabulary of {len(words)}")
    return words[number]


def _byte_level(file: GgufFile, words: Sequence[str]) -> Any:
    """Byte-level pair encoding, GGUF's "gpt2"."""
    from tokenizers import Tokenizer as Core
    from tokenizers import decoders, models, normalizers

    kind = file.metadata.get("tokenizer.ggml.model")
    if kind != "gpt2":
        raise ModelError(
            f"{file.path}: a tokenizer of kind {kind!r} is not supported in GGUF files, only byte-level pair encoding "
            "('gpt2'). Use the model's Hugging Face directory instead"
        )
    pre = file.metadata.get("tokenizer.ggml.pre", "default")
    merges = [tuple(pair.split(" ", 1)) for pair in file.array("tokenizer.ggml.merges")]
    vocabulary = {word: number for number, word in enumerate(words)}
    core = Core(models.BPE(vocabulary, merges, ignore_merges=pre in _LLAMA3))
    core.pre_tokenizer = _splitter(file, pre)
    if pre in _QWEN2:
        core.normalizer = normalizers.NFC()
    core.decoder = decoders.ByteLevel()
    return core


def _splitter(file: GgufFile, pre: str) -> Any:
    from tokenizers import Regex, pre_tokenizers

    if pre in _PLAIN:
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    if pre in _SINGLE_DIGITS:
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    if pre in _LLAMA3 or pre in _QWEN2:
        words = pre_tokenizers.Split(Regex(_LLAMA3_WORDS if pre in _LLAMA3 else _QWEN2_WORDS), "isolated")
        return pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    raise ModelError(
        f"{file.path}: its tokenizer splits text by the rule {pre!r}, which is not known here; known: "
        f"{', '.join((*_PLAIN, *_SINGLE_DIGITS, *_LLAMA3, *_QWEN2))}. Use the model's Hugging Face directory instead"
    )


def _add_special(core: Any, words: Sequence[str], kinds: Sequence[int]) -> None:
    from tokenizers import AddedToken

    for word, kind in zip(words, kinds, strict=False):
        if kind == _CONTROL:
            core.add_special_tokens([AddedToken(word, special=True, normalized=False)])
        elif kind == _USER_DEFINED:
            core.add_tokens([AddedToken(word, normalized=False)])


def _open_with(core: Any, word: str) -> None:
    from tokenizers import processors

    core.post_processor = processors.TemplateProcessing(
        single=f"{word} $A", pair=f"{word} $A {word} $B", special_tokens=[(word, core.token_to_id(word))]
    )
