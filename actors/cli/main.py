"""The command's root: its subcommands are imported when they are called, so that ``actors --help`` is quick."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import click

from actors.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {"demo": "See the whole idea work, on this machine alone."}


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
        command: click.Command = getattr(import_module(f"actors.cli.{cmd_name}"), cmd_name)
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command. Exit status: 0 done, 1 failed, 2 wrong use, 130 on Ctrl-C."""
    from actors.exceptions import ActorsError

    try:
        code = actors.main(arguments, prog_name="actors", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read the output has gone; the interpreter must not try to write what is left of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except ActorsError as error:
        click.echo(f"actors: {error}", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
