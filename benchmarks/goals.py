"""Goals: how the figures of one run shall stand to each other, and which of them they miss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from side import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure of ours against another of the same run, or against a number.

    Attributes:
        workload: whose figure of ours it is.
        bound: the most, or the least, where more is better, that ours / theirs, or ours alone, may be.
        side: whose figure it is compared with; None: with nothing, ``bound`` is in the workload's unit.
        statistic: of ours.
        by: our side that is meant, another one where transports differ.
        against: workload and statistic of the other figure, where they are not the same as ours.
    """

    workload: str
    bound: float
    side: str | None = None
    statistic: Literal["median", "p99"] = "median"
    by: str = OURS
    against: tuple[str, str] | None = None

    def reached(self, report: Mapping[str, Any]) -> tuple[float, bool] | None:
        """Returns the ratio, or the figure, and whether it will do; None where the run did not measure it."""
        other, statistic = self.against or (self.workload, self.statistic)
        try:
            workload = report["workloads"][self.workload]
            value = workload["sides"][self.by][self.statistic]
            if self.side is not None:
                value /= report["workloads"][other]["sides"][self.side][statistic]
        except KeyError:
            return None
        return value, value <= self.bound if workload["better"] == "lower" else value >= self.bound


GOALS = (
    Goal("sync_call", 0.12, "ray"),
    Goal("sync_call", 0.5, "pyro5"),
    Goal("sync_call", 0.9, "managers"),
    Goal("sync_call", 0.9, "rpyc"),
    Goal("sync_call", 3.0, OURS, "p99", against=("sync_call", "median")),
    Goal("sync_call", 1.3, "stream", by="ours-grpc"),
    Goal("sync_call", 0.4, "ray", by="ours-grpc"),
    Goal("sync_call", 1.3, "stream-tcp", by="ours-tcp"),
    Goal("sync_call", 0.4, "ray", by="ours-tcp"),
    Goal("in_flight", 12, "ray"),
    Goal("in_flight", 1.5, "rpyc"),
    Goal("batch", 1.3, "xoscar"),
    Goal("many_to_many", 1.0, "pyro5"),
    Goal("nested", 1 / 12, "ray"),
    Goal("nested", 0.5, "pyro5"),
    Goal("argument", 2, "ray"),
    Goal("result", 1.3, "ray"),
    Goal("argument_mlx", 2, "ray"),
    Goal("result_mlx", 1.3, "ray"),
    Goal("argument", 0.6, "copy"),
    Goal("result", 0.6, "copy"),
    Goal("argument_mlx", 0.6, "copy", against=("argument", "median")),
    Goal("result_mlx", 0.6, "copy", against=("result", "median")),
    Goal("argument", 0.9, "stream", by="ours-grpc"),
    Goal("result", 0.9, "stream", by="ours-grpc"),
    Goal("argument", 0.9, "stream-tcp", by="ours-tcp"),
    Goal("result", 0.9, "stream-tcp", by="ours-tcp"),
    Goal("beside", 3.0, OURS, "p99", against=("alone", "p99")),
    Goal("beside_argument", 3.0, OURS, "p99", against=("alone", "p99")),
    Goal("spawn", 30),
    Goal("spawn_many", 4 * 150),
    Goal("light", 1000),
    Goal("first_result", 600),
    Goal("loading", 150),
    Goal("idle", 100),
)


def as_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Yields a line for each goal that the run can tell of; those that are missed say so."""
    found = [(goal, reached) for goal in GOALS if (reached := goal.reached(report)) is not None]
    if not found:
        return
    yield "\nGoals (absolute ones hold for a machine that does nothing else):"
    for goal, (value, good) in found:
        workload = report["workloads"][goal.workload]
        word = "at most" if workload["better"] == "lower" else "at least"
        name = goal.workload if goal.statistic == "median" else f"{goal.workload}, its p99"
        name = name if goal.by == OURS else f"{name}, by {goal.by}"
        if goal.side is None:
            to, unit = "", f" {workload['unit']}"
        else:
            what = goal.side if goal.side != OURS else f"our own {' '.join(goal.against or ())}"
            to, unit = f" times {what}", ""
        yield f"  {'ok    ' if good else 'MISSED'}  {name}: {value:.3g}{unit}{to} (goal: {word} {goal.bound:.3g}{unit})"
