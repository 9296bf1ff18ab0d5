"""Gossip as it is modelled for large clusters: a death is known everywhere, and nobody is taken for dead who lives."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from gossip import ALIVE, ANSWER, ASK, DEAD, PING, SUSPECT, Gossip, Message, News
from gossip_simulation import broadcast, deaths, joining, names_lost


@pytest.mark.parametrize("lost", [0.0, 0.02])
def test_a_death_is_known_to_all_and_nobody_else_is_taken_for_dead(lost: float) -> None:
    found = deaths(100, lost=lost)
    assert found["suspected_s"] < 6
    assert found["known_by_all_s"] < 20
    assert found["wrongly_dead"] == 0
    assert found["messages_s"] < 3  # of each node, however many there are
    assert found == deaths(100, lost=lost)


def test_one_that_is_let_in_is_known_to_all() -> None:
    assert joining(100)["known_by_all_s"] < 15


def test_relays_take_the_logarithm_of_what_a_sender_takes() -> None:
    assert broadcast(1000, 1 << 20, 4) < broadcast(1000, 1 << 20, 1000) / 50
    assert names_lost(100, 100, 3) == 1
    assert names_lost(100, 2, 3) == 0


def test_one_that_is_suspected_objects_and_is_believed() -> None:
    sent: list[tuple[int, Message]] = []
    said: list[News] = []
    node = Gossip(0, 3, random.Random(0), lambda to, message: sent.append((to, message)), said.append)
    node.received(Message(PING, 1, 0, (News(0, 0, SUSPECT),)), 0.0)
    to, answer = sent.pop()
    assert (to, answer.kind) == (1, ANSWER)
    assert News(0, 1, ALIVE) in answer.news
    other = Gossip(2, 3, random.Random(0), lambda *_: None, said.append)
    other.received(Message(PING, 1, 2, (News(0, 0, SUSPECT),)), 0.0)
    assert other.state(0) == SUSPECT
    other.received(answer, 0.1)
    assert other.state(0) == ALIVE
    other.received(Message(PING, 1, 2, (News(0, 0, SUSPECT),)), 0.2)  # an old word
    assert other.state(0) == ALIVE


def test_one_that_is_asked_to_try_says_what_came_of_it() -> None:
    sent: list[tuple[int, Message]] = []
    helper = Gossip(1, 3, random.Random(0), lambda to, message: sent.append((to, message)), lambda _: None)
    helper.received(Message(ASK, 0, 2, ()), 0.0)
    helper.received(Message(ANSWER, 2, 2, ()), 0.1)
    assert [(to, message.kind, message.about) for to, message in sent] == [(2, PING, 2), (0, ANSWER, 2)]


def test_a_suspicion_that_is_not_denied_is_a_death() -> None:
    said: list[News] = []
    node = Gossip(0, 2, random.Random(0), lambda *_: None, said.append)
    for second in range(10):
        node.tick(float(second))
    assert [news.state for news in said] == [SUSPECT, DEAD]
    assert node.state(1) == DEAD
