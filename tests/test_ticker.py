"""The thread that redraws what is shown live, where the system gives it none at first."""

from __future__ import annotations

import threading

import pytest

from actors.notebook.ticker import Ticker

PATIENCE = 30.0


def test_a_ticker_without_a_thread_draws_as_soon_as_one_can_be_begun() -> None:
    drawn = [threading.Event(), threading.Event()]
    ticker = Ticker()

    def none(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def draw(index: int) -> bool:
        drawn[index].set()
        return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", none)
        ticker.add(lambda: draw(0))
    ticker.add(lambda: draw(1))
    for each in drawn:
        assert each.wait(PATIENCE)
