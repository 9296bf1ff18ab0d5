"""The command's root: its subcommands are imported when they are called, so that ``actors --help`` is quick."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

import click

from actors.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

AGAIN_SECONDS = 0.02
FULL = {errno.ENOSPC, errno.EDQUOT}

COMMANDS = {
    "demo": "See the whole idea work, on this machine alone.",
    "start": "Start the node of this device.",
    "stop": "End the node of this device, and its actors.",
    "status": "Show this device, its node, and all devices of its cluster.",
    "list": "List actors, nodes, calls or groups.",
    "logs": "Show what actors print.",
    "stack": "Show where an actor's code stands, and what waits for it.",
    "debug": "Attach a debugger to an actor.",
    "kill": "End an actor.",
    "dashboard": "Open a page that shows the cluster.",
    "timeline": "Write what has happened as a file that Perfetto opens.",
    "replay": "Run the recorded calls of an actor again, here.",
    "generate": "Print the text that follows a prompt.",
    "chat": "Talk with a model.",
    "serve": "Serve a model by OpenAI's HTTP API.",
    "invite": "Show a code by which other devices may join.",
    "join": "Join the cluster of another device by its code.",
    "leave": "Leave the cluster.",
    "drain": "Empty a device before it is closed.",
    "launch": "Run a script once for each rank of a job.",
    "bench": "Measure calls and collectives of this cluster.",
    "doctor": "Say why a device is not found or not usable, and what to do.",
    "revoke": "Remove a device from the cluster, for good.",
}

MODULES = {"list": "listing"}
"""Of commands whose name is Python's."""


class Lazy(click.Group):
    """A group whose commands live in modules of their own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of all commands."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"actors.cli.{MODULES.get(cmd_name, cmd_name)}")
        command: click.Command = getattr(module, MODULES.get(cmd_name, cmd_name))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds a command; suggests the nearest name for one that is not there."""
        import difflib

        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f" Did you mean {close[0]!r}?" if close else f" There are: {', '.join(COMMANDS)}."
            raise click.UsageError(f"no command is called {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="actors")
def actors() -> None:
    """Remote Python objects on every device of a LAN, as easy as local ones."""


def heed_interrupts() -> None:
    """Has a Ctrl-C come again that strikes where Python cannot pass it on.

    That is in a finaliser, or in the callback of a weak reference: there it would be printed as ignored, and be lost.
    """
    before = sys.unraisablehook

    def hook(ignored: sys.UnraisableHookArgs) -> None:
        if not isinstance(ignored.exc_value, KeyboardInterrupt):
            before(ignored)
            return
        again = threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), signal.SIGINT))  # not in here, to be lost again
        again.daemon = True
        with suppress(RuntimeError):  # the interpreter ends, and with it all that there was to interrupt
            again.start()

    sys.unraisablehook = hook


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command.

    Exit status: 0 done, 1 failed, 2 wrong use, 3 no cluster running, 4 not trusted, 5 timed out, 130 on Ctrl-C.
    """
    from actors.exceptions import ActorsError, AuthenticationError, NoClusterError

    heed_interrupts()
    try:
        code = actors.main(arguments, prog_name="actors", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        _write_no_more()  # whoever read the output has gone
        sys.exit(1)
    except ActorsError as error:
        click.echo(f"actors: {error}", err=True)
        statuses = ((NoClusterError, 3), (AuthenticationError, 4), (TimeoutError, 5))
        sys.exit(next((status for kind, status in statuses if isinstance(error, kind)), 1))
    except OSError as error:
        if error.errno not in FULL:
            raise
        _write_no_more()
        click.echo(f"actors: nothing more can be written: {error.strerror}", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _write_no_more() -> None:
    """The interpreter, which ends, must not try to write what is left of the output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
