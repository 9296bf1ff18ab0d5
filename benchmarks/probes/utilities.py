"""What stands beside the actors: pools, queues, the runtime context."""

import asyncio
import queue
import threading
import time

from engine import main, part, raised, ray, row


@ray.remote
class Doubler:
    """Doubles."""

    def double(self, x):
        return 2 * x

    def slow(self, x):
        time.sleep(x)
        return x

    def fail(self, x):
        if x == 2:
            raise ValueError("two")
        return x

    def die(self, x):
        import os

        if x == 2:
            os._exit(1)
        return x


def pool(size=2):
    return part("util").ActorPool([Doubler.remote() for _ in range(size)])


@row("`ActorPool.map`, in order; more values than actors")
def pool_map():
    return list(pool().map(lambda a, v: a.double.remote(v), range(5)))


@row("`ActorPool.map_unordered`")
def pool_map_unordered():
    return sorted(pool().map_unordered(lambda a, v: a.double.remote(v), range(5)))


@row("`submit`, `get_next`, `has_next`, `get_next` at the end")
def pool_submit():
    p = pool()
    for i in range(3):
        p.submit(lambda a, v: a.double.remote(v), i)
    return p.get_next(), p.get_next(), p.has_next(), p.get_next(), p.has_next(), raised(p.get_next)


@row("`get_next_unordered`, then `get_next`: what was passed over is not given any more")
def pool_mixed():
    p = pool()
    list(p.map(lambda a, v: a.double.remote(v), range(4)))
    for seconds in (1.5, 0.1, 0.2):
        p.submit(lambda a, v: a.slow.remote(v), seconds)
    return p.get_next_unordered(), raised(p.get_next), raised(p.get_next), p.has_next()


@row("`get_next(timeout=)` runs out: `TimeoutError`; again it waits for the same; `ignore_if_timedout`")
def pool_timeout():
    p = pool(1)
    p.submit(lambda a, v: a.slow.remote(v), 1)
    return raised(lambda: p.get_next(timeout=0.1)), raised(p.get_next), raised(lambda: p.get_next(timeout=0.1))


@row("`get_next(timeout=0.1, ignore_if_timedout=True)`")
def pool_ignore():
    p = pool(1)
    p.submit(lambda a, v: a.slow.remote(v), 1)
    return raised(lambda: p.get_next(timeout=0.1, ignore_if_timedout=True)), p.has_next(), p.has_free()


@row("a value that raises: the pool goes on after it")
def pool_error():
    p = pool()
    for i in range(4):
        p.submit(lambda a, v: a.fail.remote(v), i)
    return [raised(p.get_next) for _ in range(4)], p.has_free()


@row("an actor of the pool that dies leaves it")
def pool_death():
    p = pool()
    for i in range(1, 5):
        p.submit(lambda a, v: a.die.remote(v), i)
    return [raised(lambda: p.get_next(timeout=8)) for _ in range(4)]


@row("`has_free`, `pop_idle`, `push`, `push` of one that is in it")
def pool_idle():
    one, two = Doubler.remote(), Doubler.remote()
    p = part("util").ActorPool([one])
    idle = p.pop_idle()
    return idle == one, p.has_free(), p.pop_idle(), p.push(one), raised(lambda: p.push(one)), p.push(two), p.has_free()


@row("an empty pool")
def pool_empty():
    p = part("util").ActorPool([])
    p.submit(lambda a, v: a.double.remote(v), 1)
    return p.has_next(), p.has_free(), raised(p.get_next)


@row("`map` is lazy to read, and submits at once")
def pool_lazy():
    p = pool(1)
    results = p.map(lambda a, v: a.double.remote(v), [1, 2])
    return p.has_next(), next(results), list(results)


@row("a second `map` drops what the first one left")
def pool_map_twice():
    p = pool(1)
    p.map(lambda a, v: a.double.remote(v), [1, 2])
    return list(p.map(lambda a, v: a.double.remote(v), [5, 6]))


@row("`Queue`: put, get, size, full, empty")
def queue_basic():
    q = part("util.queue").Queue(maxsize=2)
    q.put(1)
    q.put("two")
    answer = q.size(), q.qsize(), len(q), q.full(), q.get(), q.get(), q.empty()
    q.shutdown()
    return answer


@row("`Queue` full or empty: `Full`, `Empty`; with `block=False`, with a timeout, nowait", why="the plain classes")
def queue_bounds():
    q = part("util.queue").Queue(maxsize=1)
    q.put(1)
    answer = [
        raised(lambda: q.put(2, block=False)),
        raised(lambda: q.put(2, timeout=0.1)),
        raised(lambda: q.put_nowait(2)),
        raised(q.get_nowait),
        raised(q.get_nowait),
        raised(lambda: q.get(timeout=0.1)),
        raised(lambda: q.get(block=False)),
        raised(lambda: q.get(timeout=-1)),
        raised(lambda: q.put(1, timeout=-1)),
    ]
    q.shutdown()
    return answer


@row("`Empty` and `Full` are those of the standard `queue`")
def queue_errors():
    module = part("util.queue")
    return issubclass(module.Empty, queue.Empty), issubclass(module.Full, queue.Full)


@row("batches: `put_nowait_batch`, `get_nowait_batch`, too many", why="the plain classes")
def queue_batches():
    q = part("util.queue").Queue(maxsize=3)
    q.put_nowait_batch([1, 2])
    answer = [
        raised(lambda: q.put_nowait_batch([3, 4])),
        raised(lambda: q.get_nowait_batch(3)),
        q.get_nowait_batch(2),
        raised(lambda: q.get_nowait_batch("x")),
        raised(lambda: q.put_nowait_batch(5)),
    ]
    q.shutdown()
    return answer


@row("`put_async`, `get_async`")
def queue_async():
    q = part("util.queue").Queue()

    async def use():
        await q.put_async(1)
        return await q.get_async()

    answer = asyncio.run(use())
    q.shutdown()
    return answer


@row("a `Queue` passed to an actor")
def queue_passed():
    @ray.remote
    class Puts:
        def put(self, q):
            q.put("from actor")

    q = part("util.queue").Queue()
    ray.get(Puts.remote().put.remote(q))
    answer = q.get(timeout=5)
    q.shutdown()
    return answer


@row("a blocked `get` is woken by a `put` of another")
def queue_wakes():
    @ray.remote
    class Gets:
        def get(self, q):
            return q.get(timeout=8)

    q = part("util.queue").Queue()
    waiting = Gets.remote().get.remote(q)
    time.sleep(0.5)
    q.put("woken")
    answer = ray.get(waiting, timeout=8)
    q.shutdown()
    return answer


@row("a `Queue` after `shutdown`", why="an error that says so")
def queue_shutdown():
    q = part("util.queue").Queue()
    q.put(1)
    q.shutdown()
    return raised(lambda: q.put(2)), raised(q.size)


@row("`Queue(actor_options={'num_cpus': 0, 'name': 'q'})`")
def queue_options():
    q = part("util.queue").Queue(actor_options={"num_cpus": 0, "name": "q"})
    q.put(1)
    answer = q.get(), ray.get_actor("q") == q.actor
    q.shutdown()
    return answer


@row("`inspect_serializability`")
def inspects():
    lock = threading.Lock()

    def uses():
        return lock

    ok, found = part("util").inspect_serializability(uses, name="uses")
    fine, nothing = part("util").inspect_serializability(5)
    [failing] = found
    return ok, type(failing.obj).__name__, failing.path, type(failing.parent).__name__, fine, nothing


@row(
    "runtime context in the driver", why="values, where Ray asserts; placement groups and accelerators have no ids here"
)
def context_driver():
    context = ray.get_runtime_context()
    return (
        raised(lambda: len(context.get_node_id()) > 8),
        raised(context.get_actor_id),
        raised(context.get_actor_name),
        raised(context.get_task_id),
        raised(lambda: len(context.get_job_id()) > 4),
        raised(lambda: len(context.get_worker_id()) > 4),
        raised(context.get_assigned_resources),
        raised(lambda: context.current_actor),
        raised(lambda: context.was_current_actor_reconstructed),
        raised(lambda: context.get_runtime_env_string()),
        raised(lambda: context.get_node_labels()["zone"]),
        raised(lambda: context.get_placement_group_id()),
        raised(lambda: context.get_accelerator_ids()["GPU"]),
    )


@row("runtime context in an actor", why="no `get_task_function_name`")
def context_actor():
    @ray.remote
    class Where:
        def where(self):
            c = ray.get_runtime_context()
            return (
                len(c.get_actor_id()) > 8,
                c.get_actor_name(),
                c.get_task_id() is not None,
                c.get_task_name(),
                raised(lambda: c.get_task_function_name()),
                sorted(c.get_assigned_resources().items()),
                c.get_node_id() is not None,
                c.was_current_actor_reconstructed,
                c.namespace == ray.get_runtime_context().namespace,
            )

    actor = Where.options(name="where", num_cpus=0.5, resources={"gold": 1}).remote()
    plain = Where.remote()
    return ray.get(actor.where.remote()), ray.get(plain.where.remote())


@row("`get_runtime_context().get()`, `.job_id`, `.actor_id` (deprecated in Ray)", why="not there: deprecated in Ray")
def context_deprecated():
    context = ray.get_runtime_context()
    return raised(lambda: sorted(context.get()) != []), raised(lambda: bool(context.job_id))


@row(
    "`get_gpu_ids()`, `is_initialized()`, `__version__`, `timeline`",
    why="a GPU has no number here",
)
def other_names():
    return (
        raised(lambda: ray.get_gpu_ids()),
        ray.is_initialized(),
        isinstance(ray.__version__, str),
        hasattr(ray, "timeline"),
    )


@row("`ray.util.metrics.Counter`, `Gauge`, `Histogram`")
def metrics():
    m = part("util.metrics")
    counter = m.Counter("calls_made", description="calls", tag_keys=("kind",))
    gauge = m.Gauge("now", description="now")
    histogram = m.Histogram("times", description="times", boundaries=[0.1, 1])
    return (
        raised(lambda: counter.inc(1, tags={"kind": "a"})),
        raised(lambda: gauge.set(3)),
        raised(lambda: histogram.observe(0.5)),
        raised(lambda: counter.inc(-1)),
        raised(lambda: m.Histogram("none")),
    )


@row("`ray.util.multiprocessing.Pool`", why="not there: `actors.util.Executor` is a `concurrent.futures.Executor`")
def multiprocessing_pool():
    return raised(lambda: part("util.multiprocessing").Pool.__name__)


if __name__ == "__main__":
    main()
