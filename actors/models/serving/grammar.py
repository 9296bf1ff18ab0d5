"""Answers of a given form: a grammar says which tokens may come next, and the rest are ruled out as they are sampled.

The grammars are llguidance's. They run where tokens are chosen, in the process of the last stage; what travels there
is the grammar as text, and once the tokenizer.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from actors.api import get, put
from actors.exceptions import ModelError

from .errors import wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import mlx.core as mx
    from llguidance import LLMatcher, LLTokenizer

    from actors.models import Tokenizer
    from actors.refs import ObjectRef

# One way of writing white space: where any amount is allowed, a small model may write nothing else until it is cut off.
_SPACING: Final = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
ANY_OBJECT: Final[Mapping[str, Any]] = {"type": "object"}


def of_schema(schema: Mapping[str, Any]) -> str:
    """The grammar of JSON that is valid under a schema."""
    from llguidance import LLMatcher

    return LLMatcher.grammar_from_json_schema(json.dumps(spaced(schema)))


def spaced(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema that says how the white space is written, too."""
    return {**schema, "x-guidance": _SPACING}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer that travels once to each process that follows a grammar."""

    key: str
    core: ObjectRef[str]
    stop_ids: tuple[int, ...]

    def tokenizer(self) -> LLTokenizer:
        """The tokenizer as llguidance has it; the first time in a process takes a second."""
        return _tokenizer(self)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and other.key == self.key


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary | None:
    """The vocabulary of a model's tokenizer, or None where it is of a kind that grammars cannot follow."""
    core = getattr(tokenizer.inner, "backend_tokenizer", None)
    if core is None:
        return None
    text = str(core.to_str())
    stop_ids = tuple(sorted(tokenizer.stop_ids))
    key = hashlib.sha256(f"{stop_ids} {text}".encode()).hexdigest()
    return Vocabulary(key, put(text), stop_ids)


@lru_cache(maxsize=4)
def _tokenizer(vocabulary: Vocabulary) -> LLTokenizer:
    try:
        from llguidance import LLTokenizer
    except ImportError as error:
        raise ModelError(
            f"answers of a given form need llguidance on each node, and it cannot be imported ({error}); run there: "
            "pip install 'mlx-actors[serve]'"
        ) from error
    return LLTokenizer(get(vocabulary.core), eos_token=list(vocabulary.stop_ids))


@dataclass(frozen=True, slots=True)
class Guide:
    """Follows a grammar through one answer; called where the tokens are chosen."""

    vocabulary: Vocabulary
    grammar: str

    def check(self, param: str) -> None:
        """Finds out whether the grammar can be followed.

        Raises:
            ApiError: it cannot, with the reason.
        """
        from llguidance import LLMatcher

        is_error, told = LLMatcher.validate_grammar_with_warnings(self.grammar, self.vocabulary.tokenizer())
        if is_error:
            raise wrong(param, f"{param} cannot be honoured: {told[0].strip().splitlines()[0]}", "invalid_value")

    def __call__(self) -> Callable[[list[int], mx.array], mx.array]:
        """Begins an answer; what is returned takes the tokens so far and the logits of the next."""
        from llguidance import LLMatcher

        return Follower(LLMatcher(self.vocabulary.tokenizer(), self.grammar, log_level=0))


class Follower:
    """A grammar's place in one answer."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher
        self._taken = 0  # of the answer's tokens

    def __call__(self, generated: list[int], logits: mx.array) -> mx.array:
        """Rules out what may not come next.

        Args:
            generated: all tokens of the answer so far.
            logits: (vocabulary,) of the next one.
        """
        import mlx.core as mx
        import numpy as np

        matcher = self._matcher
        matcher.consume_tokens(generated[self._taken :])
        self._taken = len(generated)
        if matcher.is_error():
            raise ModelError(f"the answer's form cannot be followed any further: {matcher.get_error()}")
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        allowed = np.zeros(logits.shape[-1], dtype=bool)  # a head may have more rows than the tokenizer has tokens
        count = min(len(bits), len(allowed))
        allowed[:count] = bits[:count]
        return mx.where(mx.array(allowed), logits, -mx.inf)
