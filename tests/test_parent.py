"""The tie to the parent: orders come by standard input, and its end is seen however it came."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.parent import orders_line, watch

PROGRAM = """
import json, os, signal, sys, threading
from actors.parent import read_orders, watch
orders, parent = read_orders()
gone = threading.Event()
watch(parent, gone.set)
print(json.dumps([orders, sys.stdin.read(), signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
                  os.get_inheritable(parent)]), flush=True)
gone.wait(20)
print("gone" if gone.is_set() else "forgotten", flush=True)
"""

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def child(program: str = PROGRAM) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_orders_are_read_and_the_parents_end_is_seen() -> None:
    import json

    orders = {"id": "w1", "text": "line\nbreak é \ud800", "list": [1, None]}
    with child() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(orders_line(orders) + b"what the parent writes later")
        process.stdin.flush()
        read, left, deaf, inheritable = json.loads(process.stdout.readline())
        assert read == orders
        assert left == ""  # user code that reads standard input finds nothing
        assert deaf  # Ctrl-C is the driver's
        assert not inheritable
        assert process.poll() is None
        process.stdin.close()
        assert process.stdout.readline() == b"gone\n"
        assert process.wait(10) == 0


def test_a_parent_that_ends_before_its_orders_takes_the_child_along() -> None:
    with child() as process:
        output, _ = process.communicate(b'{"half":', timeout=20)
        assert output == b""
        assert process.returncode == 0


@given(st.dictionaries(st.text(), values, max_size=4))
def test_orders_are_one_line(orders: dict[str, object]) -> None:
    line = orders_line(orders)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1


@pytest.mark.parametrize("how", ["closed", "broken"])
def test_watch_sees_the_end(how: str) -> None:
    gone = threading.Event()
    reading, writing = os.pipe()
    try:
        if how == "broken":  # a descriptor that cannot be read from
            watch(writing, gone.set)
            assert gone.wait(10)
        else:
            watch(reading, gone.set)
            os.write(writing, b"not the end")
            assert not gone.wait(0.05)
    finally:
        os.close(writing)
    assert gone.wait(10)
    os.close(reading)
