"""``actors launch``: a script once for each rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from actors.launch.ranks import Printed


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-n", "size", type=click.IntRange(min=1), required=True, help="How many ranks.")
@click.option("--nodes", help="Run on these nodes of the cluster: names with commas between, or 'all'.")
@click.option("--working-dir", "folder", type=click.Path(exists=True, file_okay=False),
              help="With --nodes: the folder that is sent to them; the script's own otherwise.")  # fmt: skip
@click.argument("script", type=click.Path())
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def launch(size: int, nodes: str | None, folder: str | None, script: str, arguments: tuple[str, ...]) -> int:
    """Run SCRIPT once for each rank, on this machine or on paired devices.

    Each rank finds RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT in its environment;
    actors.collective works among all ranks, and so does actors.communicator.GRPCCommunicator().init(). What they print
    is shown with the rank before it. When one fails, the others are ended, and its exit status is that of the job.

    \b
    Example:
      actors launch -n 8 train.py --epochs 3
      actors launch -n 4 --nodes all train.py
    """  # noqa: D301 - click wants the character itself
    from actors.launch.job import Job, run

    if folder is not None and nodes is None:
        raise click.UsageError("--working-dir is for --nodes: on this machine the ranks run in this folder")
    chosen = tuple(name.strip() for name in nodes.split(",") if name.strip()) if nodes is not None else None
    if chosen == ():
        raise click.UsageError("--nodes names no node: give names with commas between, or 'all'")
    width = len(str(size - 1))

    def show(line: Printed) -> None:
        click.echo(f"[{line.rank:>{width}}] {line.text}", err=line.stream == "stderr")

    try:
        return run(
            Job(size, script, arguments, chosen, folder), show, lambda text: click.echo(f"actors: {text}", err=True)
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
