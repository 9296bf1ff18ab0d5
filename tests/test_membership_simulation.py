"""The simulation of large clusters comes to an end in which all know all."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from membership_simulation import bits, simulate
from mesh_simulation import Meeting, meet


@pytest.mark.parametrize("multicast", [False, True])
@pytest.mark.parametrize("nodes", [2, 32, 100])
def test_all_know_all(nodes, multicast):
    outcome = simulate(nodes, multicast=multicast)
    assert 0 <= outcome.seconds < 2
    assert outcome == simulate(nodes, multicast=multicast)


def test_bits():
    assert bits(0b101001) == [0, 3, 5]


def test_the_model_costs_what_the_runtimes_own_code_costs() -> None:
    model, own = simulate(12), meet(12)
    assert own.links == 2 * 11
    assert own.seconds < 1
    assert model.kilobytes / 1.5 < own.kilobytes < model.kilobytes * 1.5
    assert model.messages < own.frames < model.messages * 2  # hellos and acknowledgements are frames too
    assert own.idle_frames < 11  # a node does not speak with every other each second


class Renamed(Meeting):
    """Once all know all, one is called otherwise, one is removed, and one is told of that was not known."""

    async def _all(self, until: float) -> None:
        await super()._all(until)
        members = self.devices[0].node.members
        self.names = [[member.info.name for member in members.all()]]
        other, removed = members.find(self.devices[3].id), members.find(self.devices[2].id)
        members.said_here(replace(other.info, name="later"), other.where)
        self.names.append([member.info.name for member in members.all()])
        await members.evict(removed.info.id)
        self.names.append([member.info.name for member in members.all()])
        members.said_here(removed.info, removed.where)
        self.names.append([member.info.name for member in members.all()])
        members.all().clear()  # of the caller's own
        assert len(members.all()) == 4


def test_nodes_are_told_by_name_whatever_has_changed_since_the_last_look() -> None:
    meeting = Renamed(4, 128)
    meeting.run()
    assert meeting.names == [
        ["node-0", "node-1", "node-2", "node-3"], ["node-0", "later", "node-1", "node-2"],
        ["node-0", "later", "node-1"], ["node-0", "later", "node-1", "node-2"],
    ]  # fmt: skip
