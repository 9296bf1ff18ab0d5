"""The command's root: help, names that are nearly right, exit statuses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from actors.cli import main
from actors.version import __version__


def run(capsys, *arguments):
    """Returns exit status, standard output and standard error."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code, *capsys.readouterr()


def test_the_installed_command_tells_its_version():
    command = Path(sysconfig.get_path("scripts")) / "actors"
    if not command.exists():
        pytest.skip("the package is not installed, only found")
    run = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout.strip(), run.stderr) == (0, f"actors, version {__version__}", "")


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_lists_every_command(capsys, option):
    status, out, err = run(capsys, option)
    assert (status, err) == (0, "")
    assert out.startswith("Usage: actors [OPTIONS] COMMAND")
    assert re.search(r"demo +See the whole idea work, on this machine alone\.", out)


def test_without_a_command_it_shows_the_help(capsys):
    status, out, err = run(capsys)
    assert (status, out) == (2, "")
    assert "Commands:" in err


def test_help_of_a_command_has_an_example(capsys):
    status, out, _ = run(capsys, "demo", "--help")
    assert status == 0
    assert "\n  Example:\n    actors demo\n    actors demo --json" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dmeo"], "no command is called 'dmeo'. Did you mean 'demo'?"),
        (["xyzzy"], "no command is called 'xyzzy'. There are: demo, start, "),
        (["demo", "--jsno"], "Did you mean '--json'?"),
        (["demo", "twice"], "unexpected extra argument"),
        (["--verison"], "Did you mean"),
        (
            ["list", "actors", "--state", "ALVE"],
            "'ALVE' is none of PENDING_CREATION, ALIVE, RESTARTING, DEAD. Did you mean",
        ),
        (["list", "actrs"], "'actrs' is none of actors, nodes, calls, groups. Did you mean 'actors'?"),
        (["start", "--host", "no such host"], "'no such host' is no address of this device; 0.0.0.0 is all it has."),
        (["invite", "--host", "192.0.2.1"], "'192.0.2.1' is no address of this device"),
        (["start", "--port", "99999"], "99999 is not in the range 0<=x<=65535"),
        (["join", "notacode"], "that is not a code: one looks like "),
        (["join", "--timeout", "-1"], "'-1' is no positive number of seconds"),
        (["join", "--timeout", "nan"], "'nan' is no positive number of seconds"),
        (["drain", "desk", "--timeout", "soon"], "'soon' is no positive number of seconds"),
        (["debug"], "Missing argument 'WHO'"),
    ],
)
def test_wrong_use_is_status_2_and_says_what_was_meant(capsys, arguments, said):
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert err.startswith("Usage: actors")


def test_help_is_quick_for_it_loads_none_of_the_commands():
    program = "import sys; from actors.cli import main\ntry: main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(run.stdout.splitlines()[-1].split())
    assert not loaded & {"actors.cli.demo", "actors.runtime", "rich", "grpc", "numpy", "mlx", "psutil"}


@pytest.mark.parametrize("where", ["ref = weakref.ref(thing, strike)", "Thing.__del__ = strike"])
def test_an_interrupt_that_strikes_where_python_ignores_it_comes_again(where):
    program = f"""
import os, signal, time, weakref
from actors.cli.main import heed_interrupts

class Thing: pass

def strike(_):
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        pass
    print("it went past", flush=True)

heed_interrupts()
thing = Thing()
{where}
try:
    del thing
    time.sleep(30)
except KeyboardInterrupt:
    print("interrupted")
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert (run.stdout, run.stderr) == ("interrupted\n", "")


def test_a_long_list_comes_page_by_page_on_a_terminal(tmp_path):
    pty = pytest.importorskip("pty")
    pager = tmp_path / "pager"
    pager.write_text("#!/bin/sh\necho 'the pager has'\ncat\n")
    pager.chmod(0o755)
    shown = "from actors.cli.table import show; show('\\n'.join(map(str, range(%d))))"
    for lines, paged in ((40, True), (3, False)):
        ours, theirs = pty.openpty()
        environment = {**os.environ, "PAGER": str(pager), "LINES": "24", "COLUMNS": "80", "TERM": "xterm"}
        program = [sys.executable, "-c", shown % lines]
        with subprocess.Popen(program, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as running:
            os.close(theirs)
            said = b""
            while piece := _read(ours):
                said += piece
            assert running.wait(30) == 0
        os.close(ours)
        assert (b"the pager has" in said) == paged, said
        assert str(lines - 1).encode() in said


def _read(terminal):
    try:
        return os.read(terminal, 4096)
    except OSError:  # nobody writes any more
        return b""
