"""A thread that waits for messages is run soon once it wakes."""

from __future__ import annotations

import ctypes
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from actors import slices
from actors.courtesy import Courtesy
from actors.draft import write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def attributes() -> tuple[int, ...]:
    """Returns what the system knows of the calling thread."""
    found = ctypes.create_string_buffer(slices._ATTRIBUTES.size)
    assert slices._call(slices._GET, 0, found, slices._ATTRIBUTES.size, 0) == 0
    return slices._ATTRIBUTES.unpack(found.raw)


def _on_a_thread(work: Callable[[], tuple[int, ...]]) -> tuple[int, ...]:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def _asked() -> tuple[int, ...]:
    slices.ask_to_run_soon()
    return attributes()


if not hasattr(slices, "_call"):
    pytest.skip("this system knows of no slices", allow_module_level=True)
if _on_a_thread(attributes)[5] == 0:
    pytest.skip("this kernel lets nobody choose a slice (it is older than 6.12)", allow_module_level=True)


def test_the_slice_is_asked_for_and_nothing_else_changes() -> None:
    _, policy, _, nice, *_ = _on_a_thread(attributes)
    _, its_policy, _, its_nice, _, slice_, *_ = _on_a_thread(_asked)
    assert slice_ == slices.SLICE_NANOSECONDS
    assert (its_policy, its_nice) == (policy, nice)


def test_a_thread_may_choose_its_policy_afterwards() -> None:
    def choose() -> tuple[int, ...]:
        slices.ask_to_run_soon()
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_BATCH, os.sched_param(0))
        return attributes()

    assert _on_a_thread(choose)[1] == os.SCHED_BATCH


def test_a_thread_of_another_policy_is_left_alone() -> None:
    def batch() -> tuple[int, ...]:
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_BATCH, os.sched_param(0))
        before = attributes()
        assert _asked() == before
        return before

    assert _on_a_thread(batch)[1] == os.SCHED_BATCH


def test_one_that_computes_for_long_has_long_slices_meanwhile_and_so_have_its_helpers() -> None:
    def compute() -> tuple[tuple[int, ...], ...]:
        slices.ask_to_run_soon()
        with slices.computing_for_long():
            long, helper = attributes(), _on_a_thread(attributes)
        return long, helper, attributes()

    with ThreadPoolExecutor(1) as pool:
        long, helper, after = pool.submit(compute).result()
    assert long[5] == helper[5] == slices.LONG_NANOSECONDS
    assert after[5] == slices.SLICE_NANOSECONDS


def test_what_copies_much_computes_for_long(tmp_path: Path) -> None:
    seen: list[int] = []

    def write_much() -> None:
        slices.ask_to_run_soon()
        descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        try:
            write(descriptor, 0, bytes(8 << 20))
        finally:
            os.close(descriptor)

    give_way = Courtesy.give_way
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as pool:
        patch.setattr(Courtesy, "give_way", lambda self: (seen.append(attributes()[5]), give_way(self)))
        pool.submit(write_much).result()
    assert seen == [slices.LONG_NANOSECONDS] * 8
