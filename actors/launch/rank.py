"""One rank of a job: runs the user's script as `python script.py` would, tied to the process that started it.

Started as ``python -m actors.launch.rank PIPE SCRIPT [ARGUMENTS]``; once PIPE reads as ended, the job is over, and this
process ends with all that it has started.
"""

from __future__ import annotations

import os
import signal
import sys
from types import ModuleType
from typing import NoReturn

from actors import launched
from actors.parent import watch

_PR_SET_PDEATHSIG = 1


def main() -> NoReturn:
    """Runs the script."""
    pipe, script = int(sys.argv[1]), sys.argv[2]
    os.set_inheritable(pipe, False)
    if sys.platform == "linux":
        _wake_at_the_end()
    watch(pipe, lambda: os.killpg(0, signal.SIGKILL))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started this ignores Ctrl-C
    launched.take_in()
    sys.argv = sys.argv[2:]
    sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
    sys.exit(_run(script))


def _run(script: str) -> int | str | None:
    """Runs a file as the main module. Returns the exit status, as `sys.exit` takes it."""
    module = ModuleType("__main__")
    module.__file__ = script
    module.__builtins__ = __builtins__  # type: ignore[attr-defined]  # as the interpreter sets it
    sys.modules["__main__"] = module
    try:
        with open(script, "rb") as file:
            code = compile(file.read(), script, "exec", dont_inherit=True)
        exec(code, module.__dict__)  # noqa: S102 - this is what the program is for
    except SystemExit as end:
        return end.code
    except BaseException as error:
        trace = error.__traceback__
        # Without the line above, which is not the user's.
        error.__traceback__ = trace = trace.tb_next if trace is not None else None
        sys.excepthook(type(error), error, trace)
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return None


def _wake_at_the_end() -> None:
    """Has Linux wake this process when its parent ends, lest one that is stopped does not see it and stays."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGCONT))


if __name__ == "__main__":
    main()
