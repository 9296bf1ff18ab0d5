"""Steps and hidden states arrive as they were sent, in few bytes."""

from __future__ import annotations

import pytest

pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

import mlx.core as mx
from hypothesis import given
from hypothesis import strategies as st

from actors.models.hop import packed, read_step, step_text, unpacked
from actors.models.stage import Apart, Row, Step

KEYS = st.text(max_size=8)
COUNTS = st.integers(0, 2**20)
NAMES = st.lists(KEYS, max_size=3).map(tuple)
STEPS = st.builds(
    Step,
    rows=st.lists(st.builds(Row, KEYS, st.lists(COUNTS, max_size=4).map(tuple)), max_size=3).map(tuple),
    forget=NAMES,
    keep=NAMES,
    fork=st.lists(st.tuples(KEYS, KEYS, COUNTS), max_size=2).map(tuple),
    drop=NAMES,
    trim=st.lists(st.tuples(KEYS, COUNTS), max_size=2).map(tuple),
    silent=st.booleans(),
    batched=st.booleans(),
)


@given(STEPS)
def test_a_step_is_read_as_it_was(step: Step) -> None:
    assert read_step(step_text(step)) == step


def test_a_usual_step_is_its_row_and_no_more() -> None:
    assert step_text(Step((Row("abc", (7,)),))) == '[[["abc",7]]]'


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_small_hidden_state_is_bytes_that_become_the_same(dtype: str) -> None:
    hidden = mx.random.normal((2, 1, 24)).astype(getattr(mx, dtype))
    sent = packed(hidden)
    assert len(sent) == hidden.nbytes + 9
    back = unpacked(sent)
    assert back.dtype == hidden.dtype
    assert mx.array_equal(back, hidden)


def test_whatever_else_goes_as_it_is() -> None:
    for other in (None, Apart((mx.ones(2),)), (mx.ones((1, 1, 4)), None), mx.ones((1, 64, 576)), mx.ones((1, 2, 2, 2))):
        assert unpacked(packed(other)) is other
