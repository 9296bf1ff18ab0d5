"""Restarts, retries and ends."""

import gc
import os
import sys
import tempfile
import time

from engine import eventually, main, raised, ray, row


@ray.remote
class Fragile:
    """Dies when asked."""

    def __init__(self, folder=None):
        self.folder = folder
        self.calls = 0
        self.note("made")

    def note(self, what):
        if self.folder:
            with open(os.path.join(self.folder, "log"), "a") as file:
                file.write(what + "\n")

    def pid(self):
        return os.getpid()

    def count(self):
        self.calls += 1
        return self.calls

    def die(self):
        self.note("die")
        os._exit(1)

    def die_once(self):
        self.note("die_once")
        if not os.path.exists(os.path.join(self.folder, "died")):
            open(os.path.join(self.folder, "died"), "w").close()
            os._exit(1)
        return "survived"

    def sleep(self, seconds):
        self.note("sleep")
        time.sleep(seconds)
        return "slept"

    def sys_exit(self, code=0):
        sys.exit(code)

    def leave(self):
        exit_actor()

    def fail_twice(self):
        self.note("fail")
        self.calls += 1
        if self.calls < 3:
            raise ValueError("not yet")
        return self.calls

    def restarted(self):
        return ray.get_runtime_context().was_current_actor_reconstructed


def exit_actor():
    import importlib

    importlib.import_module(ray.__name__ + ".actor").exit_actor()


def log_of(folder):
    with open(os.path.join(folder, "log")) as file:
        return file.read().split()


def each(refs, seconds=12):
    return [raised(lambda ref=ref: ray.get(ref, timeout=seconds)) for ref in refs]


@row("`kill`: calls after it; the call that runs; calls queued")
def kill():
    actor = Fragile.remote()
    ray.get(actor.count.remote())
    refs = [actor.sleep.remote(5), actor.count.remote()]
    time.sleep(0.3)
    ray.kill(actor)
    return each(refs), raised(lambda: ray.get(actor.count.remote(), timeout=8))


@row("`kill` twice, of an actor that is dead, of a thing that is no handle")
def kill_odd():
    actor = Fragile.remote()
    ray.get(actor.count.remote())
    return raised(lambda: ray.kill(actor)), raised(lambda: ray.kill(actor)), raised(lambda: ray.kill(5))


@row("`kill` of an actor with `max_restarts=3`")
def kill_no_restart():
    actor = Fragile.options(max_restarts=3).remote()
    ray.get(actor.count.remote())
    ray.kill(actor)
    return raised(lambda: ray.get(actor.count.remote(), timeout=8))


@row("`kill(no_restart=False)`: it restarts, with fresh state")
def kill_and_restart():
    actor = Fragile.options(max_restarts=1, max_task_retries=1).remote()
    before = ray.get(actor.pid.remote())
    ray.get(actor.count.remote())
    ray.kill(actor, no_restart=False)
    eventually(lambda: not _alive(before))
    after = raised(lambda: ray.get(actor.pid.remote(), timeout=10))
    return after != f"no error: {before}" and "no error" in after, raised(lambda: ray.get(actor.count.remote()))


@row("`kill(no_restart=False)` of an actor without restarts")
def kill_and_no_restart():
    actor = Fragile.remote()
    pid = ray.get(actor.pid.remote())
    ray.kill(actor, no_restart=False)
    eventually(lambda: not _alive(pid))
    return raised(lambda: ray.get(actor.count.remote(), timeout=8))


@row("a call right after `kill(no_restart=False)`, before the process is gone", why="the old one never runs it")
def call_right_after_kill():
    answers = set()
    for _ in range(4):
        actor = Fragile.remote()
        ray.get(actor.count.remote())
        ray.kill(actor, no_restart=False)
        answers.add(raised(lambda: ray.get(actor.count.remote(), timeout=8)))  # noqa: B023
    return sorted(answers)


@row("`max_restarts=1`, no retries: the call that was cut off, one queued behind it, and the next one")
def restart_cut_off():
    folder = tempfile.mkdtemp()
    actor = Fragile.options(max_restarts=1).remote(folder)
    ray.get(actor.count.remote())
    refs = [actor.die.remote(), actor.count.remote(), actor.count.remote()]
    first = each(refs)
    later = eventually(lambda: [x for x in each([actor.count.remote()]) if x.startswith("no error")])
    return first, later, log_of(folder)


@row("a call made while the actor restarts, no retries", why="it never started, so it waits for the new one")
def call_while_restarting():
    @ray.remote
    class SlowStart:
        def __init__(self, folder):
            if os.path.exists(os.path.join(folder, "second")):
                time.sleep(1.5)
            open(os.path.join(folder, "second"), "w").close()

        def die(self):
            os._exit(1)

        def f(self):
            return "answer"

    folder = tempfile.mkdtemp()
    actor = SlowStart.options(max_restarts=1).remote(folder)
    ray.get(actor.f.remote())
    first = raised(lambda: ray.get(actor.die.remote(), timeout=8))
    return first, each([actor.f.remote(), actor.f.remote()])


@row(
    "`max_restarts=1`, `max_task_retries=1`: the call that was cut off, and those queued behind it",
    why="again in the order they were made in; in Ray by chance",
)
def restart_with_retries():
    folder = tempfile.mkdtemp()
    actor = Fragile.options(max_restarts=1, max_task_retries=1).remote(folder)
    ray.get(actor.count.remote())
    refs = [actor.die_once.remote(), actor.count.remote(), actor.count.remote()]
    return each(refs), log_of(folder)


@row("a call that dies each time, `max_restarts=-1`, `max_task_retries=1`")
def retries_run_out():
    folder = tempfile.mkdtemp()
    actor = Fragile.options(max_restarts=-1, max_task_retries=1).remote(folder)
    ray.get(actor.count.remote())
    outcome = raised(lambda: ray.get(actor.die.remote(), timeout=15))
    return outcome, log_of(folder).count("die"), raised(lambda: ray.get(actor.count.remote(), timeout=10))


@row("restarts run out")
def restarts_run_out():
    actor = Fragile.options(max_restarts=1).remote()
    first = ray.get(actor.pid.remote())
    outcomes = [raised(lambda: ray.get(actor.die.remote(), timeout=8))]
    eventually(lambda: "no error" in raised(lambda: ray.get(actor.pid.remote(), timeout=8)))
    outcomes.append(raised(lambda: ray.get(actor.die.remote(), timeout=8)))
    outcomes.append(raised(lambda: ray.get(actor.pid.remote(), timeout=8)))
    return first > 0, outcomes


@row("`max_restarts=-1`: five deaths", seconds=40)
def restarts_for_ever():
    actor = Fragile.options(max_restarts=-1).remote()
    for _ in range(5):
        raised(lambda: ray.get(actor.die.remote(), timeout=8))
        eventually(lambda: "no error" in raised(lambda: ray.get(actor.pid.remote(), timeout=8)))
    return raised(lambda: ray.get(actor.count.remote(), timeout=8))


@row("`was_current_actor_reconstructed`, before and after")
def was_restarted():
    actor = Fragile.options(max_restarts=1, max_task_retries=-1).remote(tempfile.mkdtemp())
    before = ray.get(actor.restarted.remote())
    ray.get(actor.die_once.remote(), timeout=10)
    return before, ray.get(actor.restarted.remote(), timeout=8)


@row("the constructor's arguments are kept for a restart, also a reference the program has dropped")
def restart_arguments():
    @ray.remote
    class Has:
        def __init__(self, x):
            self.x = x

        def get(self):
            return self.x

    actor = Has.options(max_restarts=1, max_task_retries=1).remote(ray.put(7))
    ray.get(actor.get.remote())
    gc.collect()
    ray.kill(actor, no_restart=False)
    return raised(lambda: ray.get(actor.get.remote(), timeout=10))


@row("`retry_exceptions=True` with `max_task_retries=2`: a method that raises twice")
def retry_exceptions():
    actor = Fragile.options(max_task_retries=2).remote(tempfile.mkdtemp())
    return raised(lambda: ray.get(actor.fail_twice.options(retry_exceptions=True).remote(), timeout=8))


@row("`retry_exceptions=[ValueError]`, and another class in the list")
def retry_some_exceptions():
    one = Fragile.options(max_task_retries=2).remote()
    two = Fragile.options(max_task_retries=2).remote()
    return (
        raised(lambda: ray.get(one.fail_twice.options(retry_exceptions=[ValueError]).remote(), timeout=8)),
        raised(lambda: ray.get(two.fail_twice.options(retry_exceptions=[KeyError]).remote(), timeout=8)),
    )


@row("`retry_exceptions=True` without `max_task_retries`")
def retry_exceptions_alone():
    folder = tempfile.mkdtemp()
    actor = Fragile.remote(folder)
    outcome = raised(lambda: ray.get(actor.fail_twice.options(retry_exceptions=True).remote(), timeout=8))
    return outcome, log_of(folder).count("fail")


@row("`@method(max_task_retries=2, retry_exceptions=True)`")
def method_retries():
    @ray.remote
    class Tries:
        def __init__(self):
            self.calls = 0

        @ray.method(max_task_retries=2, retry_exceptions=True)
        def f(self):
            self.calls += 1
            if self.calls < 3:
                raise ValueError("not yet")
            return self.calls

    return raised(lambda: ray.get(Tries.remote().f.remote(), timeout=8))


@row("a retried call and one made after it: which runs first")
def retry_order():
    actor = Fragile.options(max_task_retries=5).remote()
    first = actor.fail_twice.options(retry_exceptions=True).remote()
    second = actor.count.remote()
    return each([first, second])


@row("`max_task_retries=-1` with `retry_exceptions`")
def retry_for_ever():
    actor = Fragile.options(max_task_retries=-1).remote()
    return raised(lambda: ray.get(actor.fail_twice.options(retry_exceptions=True).remote(), timeout=8))


@row("`exit_actor()`: that call, and the next")
def exit_by_itself():
    actor = Fragile.remote()
    ray.get(actor.count.remote())
    return each([actor.leave.remote()]), raised(lambda: ray.get(actor.count.remote(), timeout=8))


@row("`exit_actor()` with `max_restarts=3`")
def exit_no_restart():
    actor = Fragile.options(max_restarts=3, max_task_retries=3).remote()
    ray.get(actor.count.remote())
    return each([actor.leave.remote()]), raised(lambda: ray.get(actor.count.remote(), timeout=8))


@row("calls queued behind `exit_actor()`")
def exit_with_queue():
    actor = Fragile.remote()
    ray.get(actor.count.remote())
    return each([actor.count.remote(), actor.leave.remote(), actor.count.remote()])


@row("`exit_actor()` in an async method")
def exit_async():
    @ray.remote
    class Leaves:
        async def leave(self):
            exit_actor()

        async def f(self):
            return 1

    actor = Leaves.remote()
    ray.get(actor.f.remote())
    return each([actor.leave.remote()]), raised(lambda: ray.get(actor.f.remote(), timeout=8))


@row("`exit_actor()` in the driver")
def exit_in_driver():
    return raised(exit_actor)


@row("`sys.exit()` with `max_restarts=3`")
def sys_exit_no_restart():
    actor = Fragile.options(max_restarts=3).remote()
    ray.get(actor.count.remote())
    return each([actor.sys_exit.remote()]), raised(lambda: ray.get(actor.count.remote(), timeout=8))


@row("`sys.exit()` with `max_restarts=3, max_task_retries=3`")
def sys_exit_with_retries():
    actor = Fragile.options(max_restarts=3, max_task_retries=3).remote()
    ray.get(actor.count.remote())
    return each([actor.sys_exit.remote()]), raised(lambda: ray.get(actor.count.remote(), timeout=8))


@row("`sys.exit()` and `sys.exit(5)` with `max_restarts=1`: does it come back?")
def sys_exit_code_restarts():
    found = []
    for code in (None, 5):
        actor = Fragile.options(max_restarts=1).remote()
        ray.get(actor.count.remote())
        first = raised(lambda: ray.get(actor.sys_exit.remote(code), timeout=8))  # noqa: B023
        again = eventually(lambda: "no error" in raised(lambda: ray.get(actor.count.remote(), timeout=8)), 3)  # noqa: B023
        found.append((first, again))
    return found


@row(
    "a constructor whose process dies on the restart: `max_restarts=2`",
    seconds=60,
    why="the one that was cut off is told at once; it is not yet known that the restart fails",
)
def restart_fails():
    @ray.remote
    class Once:
        def __init__(self, folder):
            with open(os.path.join(folder, "log"), "a+") as file:
                file.write("x\n")
                file.seek(0)
                if len(file.read()) > 2:
                    os._exit(1)

        def die(self):
            os._exit(1)

        def f(self):
            return 1

    folder = tempfile.mkdtemp()
    actor = Once.options(max_restarts=2).remote(folder)
    ray.get(actor.f.remote())
    outcomes = [raised(lambda: ray.get(actor.die.remote(), timeout=15))]
    eventually(lambda: "ActorDiedError" in raised(lambda: ray.get(actor.f.remote(), timeout=15)), 20)
    outcomes.append(raised(lambda: ray.get(actor.f.remote(), timeout=15)))
    return outcomes, len(log_of(folder))


@row(
    "a constructor that raises on the restart: `max_restarts=2`",
    why="the one that was cut off is told at once; it is not yet known that the restart fails",
)
def restart_raises():
    @ray.remote
    class Once:
        def __init__(self, folder):
            with open(os.path.join(folder, "log"), "a+") as file:
                file.write("x\n")
                file.seek(0)
                if len(file.read()) > 2:
                    raise ValueError("only once")

        def die(self):
            os._exit(1)

        def f(self):
            return 1

    folder = tempfile.mkdtemp()
    actor = Once.options(max_restarts=2).remote(folder)
    ray.get(actor.f.remote())
    outcomes = [raised(lambda: ray.get(actor.die.remote(), timeout=15))]
    eventually(lambda: "ActorDiedError" in raised(lambda: ray.get(actor.f.remote(), timeout=15)), 10)
    outcomes.append(raised(lambda: ray.get(actor.f.remote(), timeout=15)))
    return outcomes, len(log_of(folder))


@row("a name of an actor that restarts: `get_actor` while and after")
def name_over_restart():
    actor = Fragile.options(name="phoenix", max_restarts=1).remote()
    ray.get(actor.count.remote())
    raised(lambda: ray.get(actor.die.remote(), timeout=8))
    while_down = raised(lambda: ray.get_actor("phoenix") == actor)
    eventually(lambda: "no error" in raised(lambda: ray.get(actor.count.remote(), timeout=8)))
    return while_down, raised(lambda: ray.get(ray.get_actor("phoenix").count.remote()) > 1)


@row("`atexit` handlers run at `exit_actor()`, and when the last handle is gone")
def atexit_runs():
    @ray.remote
    class Says:
        def __init__(self, path):
            import atexit

            atexit.register(lambda: open(path, "w").close())

        def leave(self):
            exit_actor()

        def ok(self):
            return 1

    found = []
    for how in ("exit", "handle"):
        path = os.path.join(tempfile.mkdtemp(), "said")
        actor = Says.remote(path)
        ray.get(actor.ok.remote())
        if how == "exit":
            actor.leave.remote()
        actor = None
        gc.collect()
        found.append(bool(eventually(lambda: os.path.exists(path), 3)))  # noqa: B023
    return found


@row("`__ray_terminate__`: ends after the calls before it")
def terminate():
    actor = Fragile.remote()
    before = actor.count.remote()
    end = actor.__ray_terminate__.remote()
    return each([before]), each([end]), raised(lambda: ray.get(actor.count.remote(), timeout=8))


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"


@row("the last handle goes: the actor ends")
def last_handle():
    actor = Fragile.remote()
    pid = ray.get(actor.pid.remote())
    del actor
    gc.collect()
    return bool(eventually(lambda: not _alive(pid)))


@row("the last handle goes while calls wait: they are answered")
def last_handle_with_calls():
    actor = Fragile.remote()
    refs = [actor.sleep.remote(0.3), actor.sleep.remote(0.3), actor.count.remote()]
    del actor
    gc.collect()
    return each(refs)


@row("`Class.remote().method.remote()` with no name for the handle")
def no_handle_kept():
    return ray.get(Fragile.remote().sleep.remote(0.3))


@row("a handle held by another actor keeps the actor alive")
def handle_held_elsewhere():
    @ray.remote
    class Holds:
        def hold(self, handles):
            self.held = handles[0]

        def ask(self):
            return ray.get(self.held.count.remote())

    holds = Holds.remote()
    actor = Fragile.remote()
    pid = ray.get(actor.pid.remote())
    ray.get(holds.hold.remote([actor]))
    del actor
    gc.collect()
    time.sleep(1)
    asked = raised(lambda: ray.get(holds.ask.remote(), timeout=5))
    holds = None
    gc.collect()
    return asked, bool(eventually(lambda: not _alive(pid)))


@row("a child actor ends with its parent")
def child_ends_with_parent():
    @ray.remote
    class Parent:
        def __init__(self):
            self.child = Fragile.options(num_cpus=0).remote()

        def pid_of_child(self):
            return ray.get(self.child.pid.remote())

    parent = Parent.remote()
    pid = ray.get(parent.pid_of_child.remote())
    ray.kill(parent)
    return bool(eventually(lambda: not _alive(pid)))


@row("the child's handle is held by the driver when the parent is killed")
def child_held_when_parent_dies():
    @ray.remote
    class Parent:
        def __init__(self):
            self.child = Fragile.options(num_cpus=0).remote()

        def give(self):
            return self.child

    parent = Parent.remote()
    child = ray.get(parent.give.remote())
    ray.get(child.count.remote())
    ray.kill(parent)
    time.sleep(1.5)
    return raised(lambda: ray.get(child.count.remote(), timeout=8))


@row("a detached actor lives without handles, until it is killed")
def detached():
    actor = Fragile.options(name="stays", lifetime="detached", num_cpus=0).remote()
    ray.get(actor.count.remote())
    del actor
    gc.collect()
    time.sleep(1)
    again = ray.get_actor("stays")
    count = ray.get(again.count.remote(), timeout=5)
    ray.kill(again)
    return count, eventually(lambda: raised(lambda: ray.get_actor("stays")) == "ValueError")


@row("a detached actor made by an actor outlives that actor")
def detached_by_actor():
    @ray.remote
    class Parent:
        def make(self):
            child = Fragile.options(name="orphan", lifetime="detached", num_cpus=0).remote()
            return ray.get(child.count.remote())

    parent = Parent.remote()
    ray.get(parent.make.remote())
    ray.kill(parent)
    time.sleep(1)
    orphan = ray.get_actor("orphan")
    count = raised(lambda: ray.get(orphan.count.remote(), timeout=5))
    ray.kill(orphan)
    return count


@row("resources are given back when an actor ends")
def resources_back():
    actor = Fragile.options(resources={"gold": 2}).remote()
    ray.get(actor.count.remote())
    before = ray.available_resources().get("gold", 0) or 0  # Ray leaves out what is all taken
    ray.kill(actor)
    return before, eventually(lambda: ray.available_resources().get("gold", 0) == 2)


if __name__ == "__main__":
    main()
