"""Values in the order in which they come, functions over many values, and joblib on a cluster."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from clusters import Latch, eventually

import actors
from actors.exceptions import ActorCycleError, GetTimeoutError
from actors.util import as_completed

pytestmark = pytest.mark.usefixtures("cluster")


def held(count: int) -> tuple[list[Any], list[Any]]:
    latches = [Latch.options(num_cpus=0).remote() for _ in range(count)]
    return latches, [latch.wait.remote(number) for number, latch in enumerate(latches)]


def test_the_first_to_come_is_given_first() -> None:
    latches, refs = held(3)
    given = as_completed(refs)
    assert given.count() == 3
    for number in (2, 0, 1):
        actors.get(latches[number].open.remote())
        assert next(given) == refs[number]
    assert given.count() == 0
    assert list(given) == []


def test_results_come_along_and_an_error_at_its_turn() -> None:
    @actors.remote
    def halve(number: int) -> int:
        if number % 2:
            raise ValueError(number)
        return number // 2

    values, errors = [], 0
    given = as_completed(halve.map(range(6)), with_results=True)
    while given.count():
        try:
            ref, value = next(given)
        except ValueError:
            errors += 1
        else:
            assert actors.get(ref) == value
            values.append(value)
    assert (sorted(values), errors) == ([0, 1, 2], 3)


def test_more_may_be_added_meanwhile() -> None:
    given = as_completed(actors.util.map(abs, [-1]), with_results=True)
    seen = []
    for _, value in given:
        seen.append(value)
        if value < 5:
            given.update(actors.util.map(lambda number: number + 1, [value]))
    assert seen == [1, 2, 3, 4, 5]


def test_the_time_may_be_over_and_what_is_no_reference_is_refused() -> None:
    _, refs = held(1)
    with pytest.raises(GetTimeoutError, match=r"1 values were not there within 0\.2 s"):
        next(as_completed(refs, timeout=0.2))
    with pytest.raises(TypeError, match="takes ObjectRefs, not a int"):
        as_completed([3])  # type: ignore[list-item]


def test_on_an_event_loop_other_tasks_go_on() -> None:
    latches, refs = held(2)

    async def work() -> list[int]:
        async def later() -> None:
            await latches[1].open.remote()
            await latches[0].open.remote()

        task = asyncio.create_task(later())
        values = [value async for _, value in as_completed(refs, with_results=True)]
        await task
        return values

    assert sorted(asyncio.run(work())) == [0, 1]


def test_a_circle_is_told() -> None:
    @actors.remote
    class Waits:
        def here(self, other: Any) -> Any:
            return [value for _, value in as_completed([other.there.remote(self.me())], with_results=True)]

        def there(self, other: Any) -> Any:
            return actors.get(other.here.remote(None))

        def me(self) -> Any:
            return actors.get_runtime_context().current_actor

    with pytest.raises(ActorCycleError):
        actors.get(Waits.remote().here.remote(Waits.remote()), timeout=20)


def test_map_runs_a_function_over_several_iterables_elsewhere() -> None:
    refs = actors.util.map(lambda x, y: (x + y, os.getpid()), [1, 2, 3], [10, 20])
    values = actors.get(refs)
    assert [value for value, _ in values] == [11, 22]
    assert os.getpid() not in {pid for _, pid in values}
    assert actors.get(actors.util.map(divmod, [7], [2], num_returns=2)[0]) == [3, 1]
    with pytest.raises(TypeError, match="something to go through"):
        actors.util.map(abs)


def test_joblib_runs_on_the_cluster_and_leaves_no_actor() -> None:
    joblib = pytest.importorskip("joblib")
    from actors.util.joblib import register, register_ray

    register()
    register_ray()
    for backend in ("actors", "ray"):
        with joblib.parallel_config(backend=backend, n_jobs=2):
            found = joblib.Parallel()(joblib.delayed(lambda n: (n * n, os.getpid()))(n) for n in range(20))
        assert [square for square, _ in found] == [n * n for n in range(20)]
        assert 1 <= len({pid for _, pid in found} - {os.getpid()}) <= 2
    with joblib.parallel_config(backend="actors", n_jobs=2), pytest.raises(ZeroDivisionError):
        joblib.Parallel()(joblib.delayed(lambda n: 1 / n)(n) for n in (1, 0, 2))
    with joblib.parallel_config(backend="actors", n_jobs=2):
        nested = joblib.Parallel()(joblib.delayed(_sum_of_squares)(n) for n in (3, 4))
    assert nested == [5, 14]
    eventually(lambda: not [a for a in _living() if a.class_name == "_Runner"], 20, "the end of the actors")


def _sum_of_squares(count: int) -> int:
    import joblib

    return sum(joblib.Parallel(n_jobs=2)(joblib.delayed(pow)(n, 2) for n in range(count)))


def _living() -> list[Any]:
    from actors.observer import Observer

    return Observer.here().view().actors()
