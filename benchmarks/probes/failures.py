"""What is raised where, and what it says."""

import ctypes
import os
import pickle
import sys
import threading
import time

from engine import kind, main, raised, ray, row


class Odd(Exception):
    """Its constructor takes other arguments than it hands on."""

    def __init__(self, code, *, reason):
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class Stubborn(Exception):
    """Holds what does not pickle."""

    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


class NoLoad(Exception):
    """Pickles and does not unpickle."""

    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise RuntimeError("not unpicklable")


@ray.remote
class Bad:
    """Fails in every way."""

    def value(self):
        raise ValueError("wrong value")

    def odd(self):
        raise Odd(5, reason="because")

    def chained(self):
        try:
            {}["key"]
        except KeyError as error:
            raise ValueError("outer") from error

    def noted(self):
        error = ValueError("noted")
        error.add_note("a note")
        raise error

    def group(self):
        raise ExceptionGroup("several", [ValueError("one"), KeyError("two")])

    def stubborn(self):
        raise Stubborn("cannot travel")

    def no_load(self):
        raise NoLoad("cannot be rebuilt")

    def unpicklable_result(self):
        return threading.Lock()

    def stop_iteration(self):
        raise StopIteration("end")

    def os_error(self):
        raise FileNotFoundError(2, "No such file", "x.txt")

    def system_exit(self, code=None):
        sys.exit(code)

    def hard_exit(self):
        os._exit(3)

    def segfault(self):
        ctypes.string_at(0)

    def base(self):
        raise BaseException("base")

    def interrupt(self):
        raise KeyboardInterrupt

    def ok(self):
        return "ok"


def caught(call):
    try:
        return call(), None
    except BaseException as error:
        return kind(error), error


@row("a method's exception is caught as the user's own class, and as the engine's error")
def user_class():
    _, error = caught(lambda: ray.get(Bad.remote().value.remote()))
    return isinstance(error, ValueError), isinstance(error, ray.exceptions.RayTaskError)


@row("`.cause` is the user's exception; `__cause__`")
def cause():
    _, error = caught(lambda: ray.get(Bad.remote().value.remote()))
    return repr(error.cause), repr(error.__cause__)


@row("`.args` of what is caught", why="the user's own `args`; in Ray the cause is the only one")
def args():
    _, error = caught(lambda: ray.get(Bad.remote().value.remote()))
    return repr(error.args)


@row("`str()` holds the remote traceback and the method")
def text_of_error():
    _, error = caught(lambda: ray.get(Bad.remote().value.remote()))
    text = str(error)
    return "wrong value" in text, "Traceback" in text or 'File "' in text, "Bad" in text and "value" in text


@row("an exception whose `__init__` takes other arguments", why="it is caught as what it is")
def odd_init():
    name, error = caught(lambda: ray.get(Bad.remote().odd.remote()))
    return (
        name,
        isinstance(error, Odd),
        getattr(error, "code", None),
        getattr(getattr(error, "cause", None), "reason", None),
    )


@row("`raise … from …`: the chain", why="the user's chain arrives: `error.cause.__cause__` is the `KeyError`")
def chained():
    _, error = caught(lambda: ray.get(Bad.remote().chained.remote()))
    return repr(error.cause.__cause__), "KeyError" in str(error)


@row("notes of an exception", why="they arrive, and are shown")
def notes():
    _, error = caught(lambda: ray.get(Bad.remote().noted.remote()))
    return getattr(error.cause, "__notes__", None), "a note" in str(error)


@row("an `ExceptionGroup` and `except*`")
def group():
    found = "no ValueError"
    try:
        ray.get(Bad.remote().group.remote())
    except* ValueError as errors:
        found = len(errors.exceptions)
    except* KeyError:
        pass
    return found


@row("an exception that holds what does not pickle", why="its class arrives, without the part that does not")
def unpicklable_exception():
    name, error = caught(lambda: ray.get(Bad.remote().stubborn.remote()))
    return name, isinstance(error, Stubborn), "cannot travel" in str(error)


@row("an exception that pickles and does not unpickle", why="its class and text arrive")
def exception_does_not_load():
    name, error = caught(lambda: ray.get(Bad.remote().no_load.remote()))
    return name, "cannot be rebuilt" in str(error)


@row("a result that does not pickle")
def unpicklable_result():
    bad = Bad.remote()
    return raised(lambda: ray.get(bad.unpicklable_result.remote())), ray.get(bad.ok.remote())


@row("`StopIteration` from a method")
def stop_iteration():
    return raised(lambda: ray.get(Bad.remote().stop_iteration.remote(), timeout=8))


@row("attributes of an `OSError`: `errno`, `filename`")
def os_error():
    _, error = caught(lambda: ray.get(Bad.remote().os_error.remote()))
    return isinstance(error, FileNotFoundError), error.cause.errno, error.cause.filename


@row("the same attributes of what is caught", why="they are there; Ray gives None")
def os_error_itself():
    _, error = caught(lambda: ray.get(Bad.remote().os_error.remote()))
    return error.errno, error.filename


@row("a caught error pickles", why="it does")
def error_pickles():
    _, error = caught(lambda: ray.get(Bad.remote().value.remote()))
    return raised(lambda: isinstance(pickle.loads(pickle.dumps(error)), ValueError))


@row("an error through two actors: class, and both methods in the text")
def through_two():
    @ray.remote
    class Asks:
        def ask(self, handles):
            return ray.get(handles[0].value.remote())

    name, error = caught(lambda: ray.get(Asks.remote().ask.remote([Bad.remote()])))
    return name, isinstance(error, ValueError), "ask" in str(error), "value" in str(error), type(error.cause).__name__


@row("`sys.exit()` in a method: that call, and the next")
def system_exit():
    bad = Bad.remote()
    ray.get(bad.ok.remote())
    return (
        raised(lambda: ray.get(bad.system_exit.remote(), timeout=8)),
        raised(lambda: ray.get(bad.ok.remote(), timeout=8)),
    )


@row("`sys.exit(5)` in a method")
def system_exit_code():
    return raised(lambda: ray.get(Bad.remote().system_exit.remote(5), timeout=8))


@row("`os._exit` in a method: that call, and the next")
def hard_exit():
    bad = Bad.remote()
    ray.get(bad.ok.remote())
    return (
        raised(lambda: ray.get(bad.hard_exit.remote(), timeout=8)),
        raised(lambda: ray.get(bad.ok.remote(), timeout=8)),
    )


@row("calls queued behind `os._exit`")
def queued_behind_exit():
    bad = Bad.remote()
    ray.get(bad.ok.remote())
    refs = [bad.hard_exit.remote(), bad.ok.remote(), bad.ok.remote()]
    return [raised(lambda ref=ref: ray.get(ref, timeout=8)) for ref in refs]


@row("a segfault")
def segfault():
    return raised(lambda: ray.get(Bad.remote().segfault.remote(), timeout=10))


@row("a `BaseException` from a method")
def base_exception():
    bad = Bad.remote()
    return raised(lambda: ray.get(bad.base.remote(), timeout=8)), raised(lambda: ray.get(bad.ok.remote(), timeout=8))


@row("`KeyboardInterrupt` from a method", why="with its traceback; nobody has cancelled the call")
def interrupt():
    bad = Bad.remote()
    return (
        raised(lambda: ray.get(bad.interrupt.remote(), timeout=8)),
        raised(lambda: ray.get(bad.ok.remote(), timeout=8)),
    )


@ray.remote
class BadStart:
    """Cannot be made."""

    def __init__(self):
        raise ValueError("no start")

    def f(self):
        return 1


@row("a constructor that raises: what a call gets")
def constructor_raises():
    name, error = caught(lambda: ray.get(BadStart.remote().f.remote(), timeout=8))
    return name, isinstance(error, ValueError), "no start" in str(error)


@row("the constructor's exception as `__cause__`", why="it is")
def constructor_cause():
    _, error = caught(lambda: ray.get(BadStart.remote().f.remote(), timeout=8))
    return repr(error.__cause__)


@row("a constructor that raises with `max_restarts=2`: how often it runs")
def constructor_raises_restarts():
    import tempfile

    folder = tempfile.mkdtemp()

    @ray.remote
    class Tries:
        def __init__(self):
            with open(os.path.join(folder, "tries"), "a") as file:
                file.write("x")
            raise ValueError("no start")

        def f(self):
            return 1

    outcome = raised(lambda: ray.get(Tries.options(max_restarts=2).remote().f.remote(), timeout=10))
    time.sleep(1)
    with open(os.path.join(folder, "tries")) as file:
        return outcome, len(file.read())


@row(
    "a constructor that calls `os._exit`, with `max_restarts=1`",
    why="the call had been sent, so it may have run; later ones raise `ActorDiedError`",
)
def constructor_exits():
    @ray.remote
    class Exits:
        def __init__(self):
            os._exit(1)

        def f(self):
            return 1

    return raised(lambda: ray.get(Exits.options(max_restarts=1).remote().f.remote(), timeout=15))


@row("a constructor that calls `sys.exit`")
def constructor_sys_exit():
    @ray.remote
    class Exits:
        def __init__(self):
            sys.exit(2)

        def f(self):
            return 1

    return raised(lambda: ray.get(Exits.remote().f.remote(), timeout=10))


@row("an actor that has died: its error tells actor and exit code", why="it does, and node and last lines")
def died_tells():
    bad = Bad.remote()
    ray.get(bad.ok.remote())
    _, error = caught(lambda: ray.get(bad.hard_exit.remote(), timeout=8))
    text = str(error)
    return "Bad" in text, "exit code 3" in text or "exit status 3" in text or "code 3" in text


@row("tree of errors: `RayActorError` over `ActorDiedError`, `ActorUnavailableError`; all `RayError`")
def tree():
    e = ray.exceptions
    return (
        issubclass(e.ActorDiedError, e.RayActorError),
        issubclass(e.ActorUnavailableError, e.RayActorError),
        issubclass(e.RayTaskError, e.RayError),
        issubclass(e.GetTimeoutError, e.RayError) and issubclass(e.GetTimeoutError, TimeoutError),
        issubclass(e.TaskCancelledError, e.RayError),
        issubclass(e.PendingCallsLimitExceeded, e.RayError),
        issubclass(e.ObjectLostError, e.RayError),
        issubclass(e.RuntimeEnvSetupError, e.RayError),
    )


@row(
    "`ray.exceptions` names of Ray: `WorkerCrashedError`, `OutOfMemoryError`, `OwnerDiedError`, …",
    why="those are not there that nothing here could raise",
)
def names_of_errors():
    names = [
        "WorkerCrashedError", "OutOfMemoryError", "OwnerDiedError", "ObjectStoreFullError", "NodeDiedError",
        "RaySystemError", "AsyncioActorExit", "ActorUnschedulableError", "TaskUnschedulableError",
        "ActorAlreadyExistsError", "ActorHandleNotFoundError", "ObjectReconstructionFailedError",
    ]  # fmt: skip
    return [name for name in names if not hasattr(ray.exceptions, name)]


if __name__ == "__main__":
    main()
