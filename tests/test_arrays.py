from __future__ import annotations

import functools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from actors import arrays, reduction

mx = pytest.importorskip("mlx.core")

NUMPY_DTYPES = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
]
MLX_DTYPES = [name for name in NUMPY_DTYPES if name != "complex128"] + ["bfloat16"]
SHAPES = [(), (0,), (3, 0, 2), (1,), (7,), (2, 3, 4)]


def mlx_array(shape, dtype):
    with mx.stream(mx.cpu):
        base = mx.arange(int(np.prod(shape))).reshape(shape) % 5
        return base.astype(mx.bool_ if dtype == "bool" else getattr(mx, dtype))


def same(one, other):
    with mx.stream(mx.cpu):
        return one.dtype == other.dtype and one.shape == other.shape and bool(mx.all(one == other))


@given(hnp.arrays(st.sampled_from([np.dtype(name) for name in NUMPY_DTYPES]), hnp.array_shapes(min_dims=0, min_side=0)))
@settings(max_examples=150, deadline=None)
def test_numpy_round_trip_is_exact(array):
    data, shape, dtype = arrays.to_tensor(array)
    back = arrays.from_tensor(bytes(data), shape, dtype)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()
    assert bytes(data) == array.tobytes()
    assert not back.flags.writeable


@pytest.mark.parametrize(
    "change",
    [
        np.asfortranarray,
        lambda a: a[::2, ::-1],
        lambda a: a.T,
        lambda a: a.astype(a.dtype.newbyteorder(">")),
        lambda a: np.broadcast_to(a[0], (5, 6)),
        lambda a: a[:0],
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "int16", "complex128"])
def test_any_layout_travels_in_c_order(change, dtype):
    array = change(np.arange(24).reshape(4, 6).astype(dtype))
    data, shape, name = arrays.to_tensor(array)
    back = arrays.from_tensor(data, shape, name)
    np.testing.assert_array_equal(back, array)
    assert back.dtype == np.dtype(dtype)
    assert back.dtype.isnative


def test_contiguous_arrays_are_not_copied():
    array = np.arange(10.0)
    data, shape, dtype = arrays.to_tensor(array)
    assert np.shares_memory(np.frombuffer(data), array)
    assert np.shares_memory(arrays.from_tensor(data, shape, dtype), array)
    assert array.flags.writeable


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", MLX_DTYPES)
def test_mlx_round_trip(dtype, shape):
    array = mlx_array(shape, dtype)
    data, got_shape, name = arrays.to_tensor(array)
    assert (got_shape, name) == (shape, dtype)
    back = arrays.from_tensor(bytes(data), got_shape, name, "mlx")
    assert arrays.kind_of(back) == "mlx"
    assert same(back, array)


@pytest.mark.parametrize("dtype", ["bfloat16", "complex64", "bool"])
def test_mlx_views(dtype):
    array = mlx_array((4, 6), dtype)
    for view in (array.T, array[::2, 1:], mx.broadcast_to(array[0], (3, 6))):
        data, shape, name = arrays.to_tensor(view)
        assert same(arrays.from_tensor(bytes(data), shape, name, "mlx"), view)


@pytest.mark.parametrize("dtype", [name for name in NUMPY_DTYPES if name != "complex128"])
def test_both_kinds_have_the_same_bytes(dtype):
    array = (np.arange(6) % 5).reshape(2, 3).astype(dtype)
    data, shape, name = arrays.to_tensor(array)
    twin = arrays.from_tensor(data, shape, name, "mlx")
    assert bytes(arrays.to_tensor(twin)[0]) == bytes(data)


def test_kinds():
    assert arrays.kind_of(np.zeros(2)) == "numpy"
    assert arrays.kind_of(mx.zeros(2)) == "mlx"
    for other in (None, [1], np.float32(1), np.ma.masked_array([1, 2]), memoryview(b"")):
        assert arrays.kind_of(other) is None
    with pytest.raises(TypeError, match=r"a list is not a numpy or MLX array.*numpy\.asarray"):
        arrays.to_tensor([1.0])


@pytest.mark.parametrize(
    "array", [np.array(["a"]), np.array([None]), np.zeros(2, "i4,f8"), np.array(["2020"], "M8[D]")]
)
def test_other_dtypes_are_named(array):
    assert not arrays.is_tensor(array)
    with pytest.raises(TypeError, match=f"dtype {re.escape(array.dtype.name)} cannot travel.*float32"):
        arrays.to_tensor(array)


@pytest.mark.parametrize(
    ("data", "shape", "dtype", "kind", "message"),
    [
        (b"1234", (2,), "float32", "numpy", "takes 8 bytes, but 4 came"),
        (b"", (), "int8", "numpy", "takes 1 bytes, but 0 came"),
        (b"1", (0,), "int8", "numpy", "takes 0 bytes, but 1 came"),
        (b"1234", (-1, 4), "int8", "numpy", "impossible shape"),
        (b"", (0, *[2**31 - 1] * 3), "int8", "numpy", "too large"),
        (b"", (2**31, 0), "int8", "numpy", "impossible shape"),
        (b"1", (1,) * 33, "int8", "numpy", "at most 32 axes"),
        (b"1", (1,), "object", "numpy", "unknown dtype 'object'; known: bool"),
        (b"1", (1,), "x" * 10_000, "numpy", "unknown dtype"),
        (b"12", (1,), "bfloat16", "numpy", "numpy has no bfloat16: ask for kind 'mlx'"),
        (b"0" * 16, (1,), "complex128", "mlx", "mlx has no complex128: ask for kind 'numpy'"),
        (b"1", (1,), "int8", "torch", "unknown kind of array 'torch'"),
    ],
)
def test_hostile_tensors(data, shape, dtype, kind, message):
    with pytest.raises(ValueError, match=message) as caught:
        arrays.from_tensor(data, shape, dtype, kind)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("kind", ["numpy", "mlx"])
def test_any_byte_but_zero_is_true(kind):
    assert arrays.from_tensor(b"\0\1\2\xff", (4,), "bool", kind).tolist() == [False, True, True, True]


@pytest.mark.parametrize(
    "array",
    [np.array(["a", "bc"]), np.zeros((2, 0), "i4,f8"), np.array(["2020"], "M8[D]"), np.asfortranarray(np.eye(3))],
)
def test_npy_round_trip(array):
    back = arrays.from_npy(arrays.to_npy(array))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)
    assert not back.flags.writeable


def test_hostile_npy():
    good = arrays.to_npy(np.arange(100))
    huge = good.replace(b"(100,)", b"(1" + b"0" * 15 + b",)")
    for bad in (b"", b"\x80\x05.", b"PK\x03\x04", good[:-1], good[:20], huge, good.replace(b"<i8", b"|O8")):
        with pytest.raises(ValueError, match=r"not an array as numpy\.save"):
            arrays.from_npy(bad)
    with pytest.raises(ValueError, match=f"ends after {len(good)} bytes, but {len(good) + 1} came"):
        arrays.from_npy(good + b"!")
    with pytest.raises(ValueError, match="allow_pickle"):
        arrays.to_npy(np.array([{}], dtype=object))


STEPS = {"sum": np.add, "product": np.multiply, "min": np.minimum, "max": np.maximum, "mean": np.add}


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_reductions_are_numpys_in_rank_order(data):
    dtype = data.draw(st.sampled_from(NUMPY_DTYPES))
    kind = np.dtype(dtype).kind
    # numpy's complex products and quotients differ in the last bit by how their memory lies: these are not compared.
    barred = {"f": set(), "c": {"product", "mean"}}.get(kind, {"mean"})
    op = data.draw(st.sampled_from([op for op in STEPS if op not in barred]))
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=1, min_side=0, max_side=20))
    parts = data.draw(st.lists(hnp.arrays(dtype, shape), min_size=1, max_size=5))
    got = reduction.reduce_tensors(op, [part.tobytes() for part in parts], dtype)
    work = np.float32 if dtype == "float16" else np.dtype(dtype)
    with np.errstate(all="ignore"):
        expected = functools.reduce(STEPS[op], [part.astype(work) for part in parts])
        expected = (expected / work(len(parts)) if op == "mean" and dtype == "float16" else expected).astype(work)
        if op == "mean" and dtype != "float16":
            expected = expected / np.dtype(dtype).type(len(parts))
        expected = expected.astype(dtype)
    np.testing.assert_array_equal(np.frombuffer(got, dtype), expected)


@given(st.lists(hnp.arrays(np.uint16, 16), min_size=1, max_size=4), st.sampled_from(sorted(STEPS)))
@settings(max_examples=100, deadline=None)
def test_bfloat16_is_reduced_in_float32_and_rounded_once(parts, op):
    wide = [(part.astype(np.uint32) << 16).view(np.float32) for part in parts]
    with np.errstate(all="ignore"):
        total = functools.reduce(STEPS[op], wide)
        total = total / np.float32(len(parts)) if op == "mean" else total
    data = reduction.reduce_tensors(op, [part.tobytes() for part in parts], "bfloat16")
    got = arrays.from_tensor(bytes(data), (16,), "bfloat16", "mlx")
    # MLX rounds independently of us; it may flush what is below the smallest normal number.
    expected = mx.array(total).astype(mx.bfloat16)
    tiny = np.abs(total) < 1.2e-38
    one, other = (np.asarray(x.astype(mx.float32)) for x in (got, expected))
    np.testing.assert_array_equal(one[~tiny], other[~tiny])


def test_reductions_that_have_no_answer():
    for dtype in ("int32", "uint8", "bool"):
        with pytest.raises(ValueError, match=f"the mean of {dtype} is not a {dtype}: convert"):
            reduction.reduce_tensors("mean", [b""], dtype)
    with pytest.raises(ValueError, match="unknown op 'median'; known: sum, product, min, max, mean"):
        reduction.check_reduction("median", "float32")
