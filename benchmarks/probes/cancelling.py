"""`cancel`, of calls and tasks, in every state they can be in."""

import asyncio
import os
import tempfile
import time

from engine import eventually, main, raised, ray, row


@ray.remote
class Plain:
    """Sleeps in a plain method."""

    def sleep(self, seconds):
        time.sleep(seconds)
        return "slept"

    def short_sleeps(self, path):
        for _ in range(100):
            if ray.get_runtime_context().is_canceled():
                open(path, "w").close()
                return "noticed"
            time.sleep(0.05)
        return "slept"

    def ok(self):
        return "ok"

    def count(self):
        for i in range(200):
            time.sleep(0.02)
            yield i


@ray.remote
class Async:
    """Sleeps in an async method."""

    def __init__(self):
        self.seen = []

    async def sleep(self, seconds):
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            raise
        return "slept"

    async def swallow(self):
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            return "swallowed"

    async def ask(self, handles):
        try:
            return await handles[0].sleep.remote(5)
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            raise

    async def all(self):
        return self.seen


@ray.remote
def sleep(seconds, path=None):
    """Sleeps."""
    time.sleep(seconds)
    if path:
        open(path, "w").close()
    return "slept"


@row("a queued call is cancelled; those around it are not")
def cancel_queued():
    plain = Plain.remote()
    running, queued, after = plain.sleep.remote(1), plain.sleep.remote(0), plain.ok.remote()
    time.sleep(0.3)
    ray.cancel(queued)
    return [raised(lambda ref=ref: ray.get(ref, timeout=8)) for ref in (running, queued, after)]


@row("a running async call: `CancelledError` inside, `TaskCancelledError` outside")
def cancel_async():
    actor = Async.remote()
    ref = actor.sleep.remote(5)
    time.sleep(0.5)
    ray.cancel(ref)
    return raised(lambda: ray.get(ref, timeout=3)), ray.get(actor.all.remote())


@row("an async call that swallows the cancellation")
def cancel_swallowed():
    actor = Async.remote()
    ray.get(actor.all.remote())
    ref = actor.swallow.remote()
    time.sleep(0.5)
    ray.cancel(ref)
    return raised(lambda: ray.get(ref, timeout=3))


@row("a running plain call")
def cancel_plain():
    plain = Plain.remote()
    ray.get(plain.ok.remote())
    ref = plain.sleep.remote(1.5)
    time.sleep(0.5)
    ray.cancel(ref)
    return raised(lambda: ray.get(ref, timeout=5)), raised(lambda: ray.get(plain.ok.remote(), timeout=5))


@row("`get_runtime_context().is_canceled()` in a plain method")
def cancel_noticed():
    plain = Plain.remote()
    ray.get(plain.ok.remote())
    path = os.path.join(tempfile.mkdtemp(), "noticed")
    ref = plain.short_sleeps.remote(path)
    time.sleep(0.5)
    ray.cancel(ref)
    return raised(lambda: ray.get(ref, timeout=8)), bool(eventually(lambda: os.path.exists(path), 2))


@row("`force=True` on an actor's call", why="ends a running plain method, with its process; Ray refuses it for actors")
def cancel_force_actor():
    plain = Plain.remote()
    ray.get(plain.ok.remote())
    ref = plain.sleep.remote(2)
    time.sleep(0.3)
    return raised(lambda: ray.cancel(ref, force=True)), raised(lambda: ray.get(ref, timeout=8))


@row("a call that is done already")
def cancel_done():
    ref = Plain.remote().ok.remote()
    ray.get(ref)
    return raised(lambda: ray.cancel(ref)), raised(lambda: ray.get(ref))


@row("a call that waits for its argument")
def cancel_waiting_for_argument():
    late = Plain.remote().sleep.remote(2)
    plain = Plain.remote()
    ref = plain.sleep.remote(late)
    time.sleep(0.3)
    ray.cancel(ref)
    return raised(lambda: ray.get(ref, timeout=1.2))


@row("recursive: what an async call has called is cancelled too")
def cancel_recursive():
    outer, inner = Async.remote(), Async.remote()
    ray.get([outer.all.remote(), inner.all.remote()])
    ref = outer.ask.remote([inner])
    time.sleep(0.7)
    ray.cancel(ref)
    outcome = raised(lambda: ray.get(ref, timeout=3))
    return outcome, bool(eventually(lambda: ray.get(inner.all.remote()), 2))


@row("`recursive=False`: it goes on")
def cancel_not_recursive():
    outer, inner = Async.remote(), Async.remote()
    ray.get([outer.all.remote(), inner.all.remote()])
    ref = outer.ask.remote([inner])
    time.sleep(0.7)
    ray.cancel(ref, recursive=False)
    outcome = raised(lambda: ray.get(ref, timeout=3))
    return outcome, bool(eventually(lambda: ray.get(inner.all.remote()), 2))


@row("a stream: the next value raises", why="a stream that is cancelled ends")
def cancel_stream():
    stream = Plain.remote().count.remote()
    first = ray.get(next(stream))
    ray.cancel(stream)
    seen = []
    for ref in stream:
        outcome = raised(lambda ref=ref: ray.get(ref, timeout=5))
        if "Error" in outcome:
            seen.append(outcome)
    return first, seen


@row("a value that was `put`, a thing that is no reference")
def cancel_odd():
    return raised(lambda: ray.cancel(ray.put(1))), raised(lambda: ray.cancel(5))


@row("a queued task")
def cancel_queued_task():
    blockers = [sleep.remote(1.5) for _ in range(2)]
    queued = sleep.remote(0)
    time.sleep(0.3)
    ray.cancel(queued)
    outcome = raised(lambda: ray.get(queued, timeout=5))
    return outcome, [raised(lambda ref=ref: ray.get(ref, timeout=8)) for ref in blockers]


@row("a running task: `KeyboardInterrupt` inside it")
def cancel_running_task():
    path = os.path.join(tempfile.mkdtemp(), "done")
    ref = sleep.remote(3, path)
    time.sleep(1)
    ray.cancel(ref)
    outcome = raised(lambda: ray.get(ref, timeout=6))
    time.sleep(0.5)
    return outcome, os.path.exists(path)


@row("a running task with `force=True`")
def cancel_running_task_force():
    ref = sleep.remote(4)
    time.sleep(1)
    ray.cancel(ref, force=True)
    return raised(lambda: ray.get(ref, timeout=6))


@row("`asyncio.Task.cancel` of who awaits a reference: does the call go on?")
def await_cancelled():
    actor = Async.remote()
    ray.get(actor.all.remote())
    ref = actor.sleep.remote(1)

    async def ask():
        async def wait():
            return await ref

        waiting = asyncio.ensure_future(wait())
        await asyncio.sleep(0.2)
        waiting.cancel()
        await asyncio.wait([waiting])
        return waiting.cancelled()

    return asyncio.run(ask()), raised(lambda: ray.get(ref, timeout=5)), ray.get(actor.all.remote())


if __name__ == "__main__":
    main()
