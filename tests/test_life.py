"""The life of an actor: made anew as often as it may be, never after its end."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors.life import Life, State


class LifeMachine(RuleBasedStateMachine):
    """An owner that does everything at any time, and a model of what may come of it."""

    @initialize(most=st.integers(-1, 4))
    def be_made(self, most: int) -> None:
        self.most = most
        self.life = Life(most)
        self.deaths = 0
        self.wanted_end = False
        self.dead = False

    @precondition(lambda self: not self.dead)
    @rule()
    def get_a_place(self) -> None:
        self.life.placed()
        assert self.life.state is State.ALIVE

    @rule()
    def late_place(self) -> None:
        before = self.life.state
        self.life.placed()
        assert (self.life.state is State.DEAD) == (before is State.DEAD)

    @rule()
    def kill(self) -> None:
        self.life.finish()
        self.wanted_end = True

    @rule(intended=st.booleans())
    def die(self, intended: bool) -> None:
        may = not self.dead and not intended and not self.wanted_end and (self.most < 0 or self.deaths < self.most)
        assert self.life.died(intended=intended) == may
        self.deaths += may
        self.dead = self.dead or not may

    @rule()
    def end(self) -> None:
        self.life.end()
        self.dead = True

    @invariant()
    def dead_stays_dead(self) -> None:
        assert (self.life.state is State.DEAD) == self.dead

    @invariant()
    def restarts_are_counted(self) -> None:
        assert self.life.times == self.deaths
        assert self.most < 0 or self.life.times <= self.most
        assert self.life.doomed == (self.wanted_end or self.deaths == self.most)


TestLife = LifeMachine.TestCase
