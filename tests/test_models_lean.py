"""A process of a stage has mlx-lm without what reads texts, and whoever wants that later gets the real thing."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

LEAN = """
import sys
from actors.models.lean import require_lean_mlx_lm

require_lean_mlx_lm()
import mlx_lm.utils
from mlx_lm.models.llama import Model
assert not [name for name in sys.modules if name.startswith(("transformers", "huggingface_hub"))]
"""
LATER = """
kept = mlx_lm.utils.TokenizerWrapper
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from mlx_lm import tokenizer_utils
assert tokenizer_utils.AutoTokenizer is AutoTokenizer
assert issubclass(tokenizer_utils.NewlineTokenizer, PreTrainedTokenizerFast)
assert tokenizer_utils.TokenizerWrapper is not kept
try:
    from pathlib import Path
    mlx_lm.utils._load_tokenizer(Path("/nowhere"))
except Exception as error:
    print(type(error).__name__, "nowhere" in str(error))
"""


def told(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_that_reads_texts_is_loaded() -> None:
    assert told(LEAN) == ""


@pytest.mark.slow
def test_whoever_reads_texts_there_gets_the_real_ones() -> None:
    """mlx-lm's own loader, which has got the stand-ins, asks transformers too, which says that nothing is there."""
    assert told(LEAN + LATER).split()[1] == "True"


@pytest.mark.slow
def test_a_process_that_has_it_already_keeps_it() -> None:
    program = "import mlx_lm; before = mlx_lm.tokenizer_utils\n" + LEAN.replace("assert", "assert True or")
    assert told(program + "assert mlx_lm.tokenizer_utils is before") == ""
