"""Errors that few people meet, each provoked in a program with a cluster of its own."""

from __future__ import annotations

import re

from clusters import succeed

SAID = ("none", "group", "find", "loop")


def test_a_cluster_says_what_it_cannot_do_and_with_whom() -> None:
    said = succeed("""
        import queue
        import actors
        from actors import runtime
        from actors.observer import Observer, find

        try:
            actors.nodes()
        except actors.exceptions.NoClusterError as error:
            print("none", error)
        actors.init("local")

        @actors.remote
        class Twin:
            def two(self):
                return 2

        light = [Twin.options(isolation="thread").remote() for _ in range(2)]
        try:
            actors.collective.create_group(light)
        except actors.exceptions.CollectiveError as error:
            print("group", error)

        twins = [Twin.remote() for _ in range(2)]
        actors.get([twin.two.remote() for twin in twins])
        observer = Observer.here()
        try:
            find("Twin", [(observer, observer.view())])
        except LookupError as error:
            print("find", error)

        caught = queue.Queue()
        ref = twins[0].two.remote()

        def look():
            try:
                caught.put(actors.get(ref))
            except RuntimeError as error:
                caught.put(error)

        runtime.joined().portal.soon(look)
        print("loop", caught.get(timeout=30))
    """)
    found = dict(line.split(" ", 1) for line in said if line.startswith(SAID))
    assert found["none"].startswith("this program is in no cluster: call actors.init() first")
    assert " shares its process with other actors: make it without isolation='thread'" in found["group"]
    assert "'Twin' means " in found["find"]
    assert " actors: actor-" in found["find"]
    assert found["loop"] == "actors.get would block the I/O loop for ever; await the reference instead"


def test_what_a_program_is_told_that_asks_for_what_is_no_more() -> None:
    said = succeed("""
        import atexit, gc, pickle, time

        def late():
            try:
                actors.init("local")
            except actors.exceptions.NoClusterError as error:
                print("ending", error)

        atexit.register(late)  # before those of what is imported now, and so after them
        import actors
        from actors import runtime

        actors.init("local")

        @actors.remote
        class Twin:
            def two(self):
                return 2
            def leave(self):
                actors.exit_actor()
            def own(self, other):
                return [other.wait.remote()]
            def wait(self):
                time.sleep(60)
            def move(self):
                actors.move(actors.get_runtime_context().current_actor, "anywhere")

        one = Twin.remote()
        try:
            actors.get(one.move.remote())
        except ValueError as error:
            print("move", str(error).splitlines()[0])
        leaving, behind = one.leave.remote(), one.two.remote()
        for each in (leaving, behind):
            try:
                actors.get(each)
            except actors.exceptions.ActorDiedError as error:
                print("left", str(error).splitlines()[0])

        other, busy = Twin.remote(), Twin.remote()
        (value,) = actors.get(other.own.remote(busy))
        actors.kill(other)
        try:
            actors.get(value)
        except actors.exceptions.ObjectLostError as error:
            print("lost", str(error).splitlines()[0])

        nowhere = {"env_vars": {"PYTHONHOME": "/nowhere"}}
        try:
            actors.get(Twin.options(runtime_env=nowhere).remote().two.remote())
        except actors.exceptions.ActorsError as error:
            print("env", " ".join(str(error).split()))

        awaited = Twin.remote().wait.remote()
        future = awaited.future()
        actors.shutdown()
        print("shut", future.exception(timeout=30))
    """)
    assert any("ending the program is ending: no cluster can be started any more" in line for line in said)
    assert any(" has ended: it called exit_actor()" in line for line in said)
    assert any(" is lost with the process that owned it: " in line for line in said)
    assert any(" cannot move itself: it moves between two calls, and this one runs" in line for line in said)
    (env,) = [line for line in said if line.startswith("env ")]
    assert "no process starts on node " in env
    assert " in this runtime_env (env_vars): a worker could not start: " in env
    assert "shut the cluster was shut down before the value came" in said


def test_what_a_program_is_told_as_actors_nodes_and_its_cluster_end() -> None:
    said = succeed("""
        import asyncio, os, signal, sys, time
        import actors, psutil
        from actors import line, runtime, taskqueue
        from actors.observer import Observer

        line.MAX_PENDING, taskqueue.MAX_WAITING = 2, 1  # of this process, before there are any
        actors.init(local_nodes=2, num_cpus=4)

        @actors.remote
        class Twin:
            def __init__(self):
                from actors import departure
                departure.PATIENCE_SECONDS = 0.2
            def two(self):
                return 2
            def make(self):
                return Twin.options(lifetime="detached").remote()
            def wait(self):
                time.sleep(60)
            def __actor_save__(self):
                return 2
            def __actor_load__(self, state):
                pass

        def told(what):
            try:
                print("not refused:", what(), flush=True)
            except Exception as error:
                print(type(error).__name__, " ".join(str(error).split()), flush=True)

        def until(condition):
            while not (found := condition()):
                time.sleep(0.02)
            return found

        process, observer = runtime.joined(), Observer.here()
        mine, other = sorted(actors.nodes(), key=lambda node: node.id != process.home.node)
        one = Twin.options(node=mine.name).remote()
        actors.get(one.two.remote())
        event = until(lambda: next((actor for actor in observer.view().actors() if actor.pid), None))
        waits = one.wait.remote()
        told(lambda: actors.move(one, other.name))

        async def three_times(make):
            return [make() for _ in range(3)]

        told(lambda: asyncio.run(three_times(one.two.remote)))
        told(lambda: asyncio.run(three_times(actors.remote(lambda: None).options(num_cpus=64).remote)))
        os.kill(event.pid, signal.SIGKILL)
        told(lambda: actors.get(waits))
        told(lambda: process.portal.run(process.ask(process.home, "hosting", "stack", event)))

        os.kill(mine.pid, signal.SIGSTOP)
        until(lambda: psutil.Process(mine.pid).status() == psutil.STATUS_STOPPED)
        told(lambda: process.portal.run(process.ask(process.home, "node", "nodes", timeout=0.2)))
        os.kill(mine.pid, signal.SIGCONT)
        os.kill(other.pid, signal.SIGKILL)
        until(lambda: not all(node.alive for node in actors.nodes()))
        told(lambda: actors.get(Twin.options(node=other.name).remote().two.remote()))

        two = Twin.remote()
        made = actors.get(two.make.remote())
        actors.get(made.two.remote())
        process.portal.close()  # as a shutdown does on another thread, just now
        told(lambda: actors.get(two.two.remote()))
        told(lambda: actors.get(made.two.remote()))
        told(lambda: actors.get(actors.remote(time.monotonic).remote()))
        os._exit(0)  # a cluster is left in order by the loop that has ended; the nodes see that this program is gone
    """)
    words = (
        r"ActorUnavailableError Twin\(actor-\w+\) moves only between two calls, and its method wait still ran after",
        r"PendingCallsLimitExceeded 2 calls to Twin\(actor-\w+\) wait for an answer: await some of them before making",
        "PendingCallsLimitExceeded 1 tasks wait: await some of them before making more",
        r"ActorDiedError Twin\(actor-\w+\) on node .* is gone: its process was ended by signal 9 \(SIGKILL\)",
        r"ActorDiedError the process of Twin actor-\w+ has ended",
        r"TimeoutError node .* did not answer node\.nodes within 0\.2 s",
        r"ActorUnplacedError Twin\(actor-\w+\) was not placed: node '.*' is gone \(.*\); there are: ",
        r"ActorDiedError Twin\(actor-\w+\) was not placed: its program is shutting down",
        "NoClusterError the cluster was shut down while the call was made",
        "NoClusterError the cluster was shut down while the task was submitted",
    )
    assert len(said) == len(words), said
    for line, expected in zip(said, words, strict=True):
        assert re.match(expected, line)
