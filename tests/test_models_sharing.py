"""Every head, every number of the MLP and every word is one rank's, whatever the devices are like."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.exceptions import ModelError
from actors.models.sharing import Shape


@given(
    kv_heads=st.integers(1, 16),
    group=st.integers(1, 8),
    inner=st.integers(16, 4000),
    vocabulary=st.integers(16, 5000),
    speeds=st.lists(st.floats(0.05, 20), min_size=1, max_size=16),
)
def test_everything_is_given_out_once(kv_heads, group, inner, vocabulary, speeds):
    shape = Shape(64, kv_heads * group, kv_heads, 16, inner, vocabulary, 4)
    if len(speeds) > kv_heads:
        with pytest.raises(ModelError, match=f"{kv_heads} heads of keys and values cannot be cut over {len(speeds)}"):
            shape.shares(speeds)
        return
    shares = shape.shares(speeds)
    for name, count in (("heads", kv_heads), ("inner", inner), ("words", vocabulary)):
        parts = [getattr(share, name) for share in shares]
        assert [number for part in parts for number in part] == list(range(count))
        assert all(parts)
    assert sum(map(shape.part, shares)) == pytest.approx(1)


def test_heads_and_mlp_are_dealt_out_each_by_itself():
    shape = Shape(576, 9, 3, 64, 1536, 49152, 30)
    first, second = shape.shares([1, 1])
    assert (len(first.heads), len(second.heads)) == (2, 1)
    assert (len(first.inner), len(second.inner)) == (768, 768)
    slow, fast = shape.shares([1, 3])
    assert (len(slow.heads), len(fast.heads)) == (1, 2)
    assert (len(slow.inner), len(fast.inner)) == (384, 1152)
