"""Functions that run once."""

import os
import tempfile
import time

from engine import main, raised, ray, row


@ray.remote
def add(a, b=1):
    """Adds."""
    return a + b


@ray.remote
def fail():
    """Raises."""
    raise ValueError("bad")


@ray.remote
def note_and_die(folder, times):
    """Dies the first times it runs."""
    with open(os.path.join(folder, "log"), "a+") as file:
        file.write("x")
        file.seek(0)
        runs = len(file.read())
    if runs <= times:
        os._exit(1)
    return runs


@ray.remote
def note_and_fail(folder, times):
    """Raises the first times it runs."""
    with open(os.path.join(folder, "log"), "a+") as file:
        file.write("x")
        file.seek(0)
        runs = len(file.read())
    if runs <= times:
        raise ValueError(f"run {runs}")
    return runs


@row("a task, its arguments by position and name, a reference as argument")
def task():
    return ray.get([add.remote(1), add.remote(1, b=5), add.remote(ray.put(3), add.remote(1))])


@row("calling the function itself")
def task_called_directly():
    return raised(lambda: add(1, 2))


@row("wrong arguments of a task")
def task_wrong_arguments():
    return raised(lambda: add.remote()), raised(lambda: add.remote(1, c=2))


@row("a task's exception")
def task_raises():
    return raised(lambda: ray.get(fail.remote()))


@row("`num_returns=2`, `num_returns=0`")
def task_num_returns():
    pair = ray.remote(lambda: (1, 2)).options(num_returns=2).remote()
    return ray.get(pair), raised(lambda: ray.remote(lambda: None).options(num_returns=0).remote())


@row("`@remote(num_returns=2)`, too many values, too few")
def task_num_returns_wrong():
    many = ray.remote(num_returns=2)(lambda: (1, 2, 3)).remote()
    few = ray.remote(num_returns=2)(lambda: (1,)).remote()
    return raised(lambda: ray.get(many)), raised(lambda: ray.get(few))


@row("a generator task streams")
def task_generator():
    @ray.remote
    def count(n):
        for i in range(n):
            yield i

    return [ray.get(ref) for ref in count.remote(3)]


@row("a task in a task, and an actor in a task")
def task_nested():
    @ray.remote
    class Counter:
        def one(self):
            return 1

    @ray.remote
    def outer():
        return ray.get(add.remote(1)) + ray.get(Counter.remote().one.remote())

    return ray.get(outer.remote(), timeout=10)


@row("depth of tasks beyond the CPUs: a blocked task gives its CPU back")
def task_deep():
    @ray.remote
    def deep(n):
        return 0 if n == 0 else 1 + ray.get(deep.remote(n - 1))

    return ray.get(deep.remote(5), timeout=18)


@row("a recursive task")
def task_recursive():
    @ray.remote
    def fib(n):
        return n if n < 2 else sum(ray.get([fib.remote(n - 1), fib.remote(n - 2)]))

    return ray.get(fib.remote(4), timeout=18)


@row("a task whose process dies, by default", why="`max_retries` is 0: only you know whether it may run again")
def task_dies():
    folder = tempfile.mkdtemp()
    outcome = raised(lambda: ray.get(note_and_die.remote(folder, 10), timeout=18))
    with open(os.path.join(folder, "log")) as file:
        return outcome, len(file.read())


@row("`max_retries=2`: dies twice")
def task_retries():
    return raised(lambda: ray.get(note_and_die.options(max_retries=2).remote(tempfile.mkdtemp(), 2), timeout=15))


@row("`max_retries=0`: dies once")
def task_no_retries():
    return raised(lambda: ray.get(note_and_die.options(max_retries=0).remote(tempfile.mkdtemp(), 1), timeout=15))


@row("a task that raises is not retried; with `retry_exceptions=True, max_retries=3` it is")
def task_retry_exceptions():
    return (
        raised(lambda: ray.get(note_and_fail.remote(tempfile.mkdtemp(), 1), timeout=8)),
        raised(
            lambda: ray.get(
                note_and_fail.options(retry_exceptions=True, max_retries=3).remote(tempfile.mkdtemp(), 2), timeout=12
            )
        ),
    )


@row("`retry_exceptions=True` alone", why="retries are 0 unless `max_retries` says otherwise")
def task_retry_exceptions_alone():
    folder = tempfile.mkdtemp()
    return raised(lambda: ray.get(note_and_fail.options(retry_exceptions=True).remote(folder, 2), timeout=12))


@row("`sys.exit()` in a task")
def task_exits():
    @ray.remote
    def leave():
        raise SystemExit(0)

    return raised(lambda: ray.get(leave.options(max_retries=0).remote(), timeout=10))


@row("an `async def` as a task", why="a `TypeError`, with the same advice")
def task_async():
    def define():
        @ray.remote
        async def later():
            return 3

        return ray.get(later.remote(), timeout=5)

    return raised(define)


@row("a task runs beside others, up to the CPUs")
def task_parallel():
    @ray.remote
    def nap():
        time.sleep(0.7)

    ray.get([nap.remote(), nap.remote()])
    began = time.monotonic()
    ray.get([nap.remote(), nap.remote()])
    return time.monotonic() - began < 1.3


@row("a task's worker is used again")
def task_worker_again():
    @ray.remote
    def pid():
        return os.getpid()

    return len({ray.get(pid.remote()) for _ in range(5)}) <= 2


@row("`ray.remote` on a lambda, on an object")
def task_kinds():
    return (
        raised(lambda: ray.get(ray.remote(lambda x: x * 2).remote(4))),
        "Error" in raised(lambda: ray.remote(5)),
        "Error" in raised(lambda: ray.remote(1, 2)),
    )


@row("`ray.remote` on a builtin", why="taken")
def task_builtin():
    return raised(lambda: ray.get(ray.remote(len).remote([1, 2])))


@row("a function's `f.__doc__`, `f.__name__`, and its plain form, `f._function`", why="all three; Ray has no name")
def task_plain():
    return raised(lambda: add.__doc__), raised(lambda: add.__name__), raised(lambda: add._function(1, 2))


if __name__ == "__main__":
    main()
