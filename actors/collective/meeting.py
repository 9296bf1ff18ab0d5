"""The group of all ranks of a job: they meet at the process that launched them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from actors.cluster import current
from actors.exceptions import CollectiveError

from .wire import join_group

if TYPE_CHECKING:
    from actors.launched import Launched

MEET_SECONDS = 60.0


def meet(rank: Launched) -> None:
    """Joins the group of the job's ranks, once all of them have called a collective.

    Raises:
        CollectiveError: not all came, or this process has joined another cluster.
    """
    process = current()
    if process.folder != Path(rank.folder):
        raise CollectiveError(
            "this rank has joined another cluster, and the ranks of its job are not in it: call actors.init() "
            "without an address, or not at all"
        )
    asked = process.ask(
        rank.launcher, "launch", "meet", rank.rank, process.address, MEET_SECONDS, timeout=MEET_SECONDS + 5
    )
    join_group(process, process.portal.run(asked))
