"""Who goes next: prompts take turns with each other and with answers, and nobody is overtaken for ever."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from itertools import accumulate, groupby

import pytest

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

from test_models_cut import PROMPT, Chain, request  # noqa: E402
from tiny_models import make_directory  # noqa: E402

from actors.models.schedule import Schedule  # noqa: E402

WIDTH = 2
LONG = [number % 150 for number in range(80)]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_directory(tmp_path_factory.mktemp("llama"))


class Pipeline:
    """Takes steps in the order in which they were begun, each some turns of the loop later, as real stages do."""

    def __init__(self, path):
        self.chain = Chain(path, [(0, 2), (3, 4)])
        self.steps = []  # (key, how many tokens), as they were begun
        self.begun = asyncio.Event()
        self._turn = asyncio.Lock()

    def begin(self, step, finish):
        self.steps += [(row.key, len(row.ids)) for row in step.rows]
        self.begun.set()
        return asyncio.ensure_future(self._taken(step, finish))

    async def _taken(self, step, finish):
        async with self._turn:
            for _ in range(3):
                await asyncio.sleep(0)
            return self.chain.run(step, finish)

    @contextmanager
    def scheduling(self, limit=1000):
        schedule = Schedule(self.begin, width=WIDTH, limit=limit)
        yield schedule
        schedule.close()


async def read(entry, count=None):
    found = []
    async for item in entry.items():
        found += [] if isinstance(item, int) else [item.id]
        if len(found) == count:
            break
    return found


def test_a_long_prompt_does_not_hold_up_an_answer_that_is_under_way(path):
    async def scenario():
        pipeline = Pipeline(path)
        with pipeline.scheduling() as schedule:
            answer = schedule.enter(request(PROMPT, 60))
            await read(answer, 2)
            pipeline.steps.clear()
            late = schedule.enter(request(LONG, 4, chunk=2))
            await asyncio.gather(read(answer), read(late))
        keys = [key for key, _ in pipeline.steps if key in {answer.key, late.key}]
        meanwhile = keys[: len(keys) - keys[::-1].index(answer.key)]
        runs = [len(list(group)) for key, group in groupby(meanwhile) if key == late.key]
        assert sum(runs) > 30
        assert max(runs) <= 2 * WIDTH, runs

    asyncio.run(scenario())


def test_long_prompts_take_turns(path):
    async def scenario():
        pipeline = Pipeline(path)
        with pipeline.scheduling() as schedule:
            one, other = (schedule.enter(request([first, *LONG], 1, chunk=2)) for first in (7, 8))
            await asyncio.gather(read(one), read(other))
        keys = [key for key, length in pipeline.steps if length == 2]
        assert len(keys) == 80
        ahead = accumulate(1 if key == one.key else -1 for key in keys)
        assert max(map(abs, ahead)) <= 2 * WIDTH

    asyncio.run(scenario())


def test_one_that_waits_for_much_room_is_not_overtaken(path):
    async def scenario():
        pipeline = Pipeline(path)
        with pipeline.scheduling(limit=60) as schedule:
            first, large, small = (schedule.enter(request(PROMPT, count)) for count in (30, 48, 2))
            assert (schedule.busy()["running"], schedule.busy()["waiting"]) == (1, 2)
            order = []

            async def ended(entry):
                await read(entry)
                order.append(entry)

            await asyncio.gather(ended(first), ended(large), ended(small))
            assert order == [first, large, small]

    asyncio.run(scenario())


def test_one_that_is_cancelled_in_the_middle_of_its_prompt_leaves_nothing_at_once(path):
    async def scenario():
        pipeline = Pipeline(path)
        with pipeline.scheduling() as schedule:
            entry = schedule.enter(request(LONG, 4, chunk=2))
            for _ in range(6):
                await pipeline.begun.wait()
                pipeline.begun.clear()
            entry.close()
            assert (schedule.busy()["running"], schedule.busy()["kv_tokens"]) == (0, 0)
            begun = len(pipeline.steps)
            await schedule.settle()
            assert len(pipeline.steps) == begun  # no more of its prompt
            assert pipeline.chain.sequences == [(), ()]

    asyncio.run(scenario())
