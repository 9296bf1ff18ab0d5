"""``actors dashboard``: the page that shows a cluster."""

from __future__ import annotations

import json
import secrets
import socket
import sys
from importlib.resources import files

import click

from actors.exceptions import ActorsError, NoClusterError
from actors.observer import NOTHING_RUNS, Observer, Observers

PORT = 8265


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), help=f"Where it is served [default: {PORT}, else a free one].")
@click.option("--program", type=int, metavar="PID", help="Show the cluster that this program has for itself.")
@click.option("--no-open", is_flag=True, help="Open no browser; the link is printed either way.")
@click.option("--grafana", is_flag=True, help="Print a dashboard for Grafana, over what /metrics tells, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with the link, and nothing else.")
def dashboard(port: int | None, program: int | None, no_open: bool, grafana: bool, as_json: bool) -> None:
    """Open a page that shows the cluster: nodes, actors, calls, groups, models, logs. It goes on until Ctrl-C.

    It is served to this machine alone, and only to who has the link. To see it from another one, forward the port:
    `ssh -L 8265:127.0.0.1:8265 HOST`. Prometheus finds its metrics under /metrics, with the link's token as bearer.

    \b
    Example:
      actors dashboard
      actors dashboard --port 9000 --no-open
      actors dashboard --grafana > actors.json
    """  # noqa: D301 - click wants the character itself
    if grafana:
        click.echo(files("actors.dashboard").joinpath("grafana.json").read_text(), nl=False)
        return
    try:
        import uvicorn

        from actors.dashboard.app import application
    except ImportError as error:
        raise click.ClickException(f"the dashboard needs {error.name}: pip install 'mlx-actors[serve]'") from error

    def find() -> Observer:
        return _chosen(program)

    find().close()  # there is something to show
    door = _listen(port)
    number, token = door.getsockname()[1], secrets.token_urlsafe(24)
    link = f"http://127.0.0.1:{number}/?token={token}"
    config = uvicorn.Config(
        application(find, number, token), log_level="warning", lifespan="on", timeout_graceful_shutdown=1,
        server_header=False, date_header=False,
    )  # fmt: skip
    click.echo(json.dumps({"url": link, "port": number, "token": token}) if as_json else link)
    if not as_json:
        click.echo("Only who has this link can see it. Ctrl-C ends it.", err=True)
    sys.stdout.flush()
    if not no_open and not as_json:
        click.launch(link)
    with door:
        uvicorn.Server(config).run(sockets=[door])


def _listen(port: int | None) -> socket.socket:
    """Returns a socket on the loopback interface: at the port given, or at the usual one or any."""
    for tried in (port,) if port is not None else (PORT, 0):
        door = socket.socket()
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind(("127.0.0.1", tried))
        except OSError as error:
            door.close()
            if port is not None:
                raise ActorsError(f"port {port} cannot be used: {error.strerror}") from error
            continue
        return door
    raise ActorsError("no port is free on the loopback interface")


def _chosen(program: int | None) -> Observer:
    """Returns the observer of the cluster to show: that of the program given, else of this device, else the latest."""
    observers = list(Observers())
    wanted = [observer for observer in observers if program is None or observer.label.startswith(f"program {program} ")]
    device = [observer for observer in wanted if observer.label.startswith("device ")]
    chosen = device[0] if device and _has_actors(device[0]) else wanted[-1] if wanted else None
    for observer in observers:
        if observer is not chosen:
            observer.close()
    if chosen is None:
        raise NoClusterError(f"program {program} has no cluster for itself" if program is not None else NOTHING_RUNS)
    return chosen


def _has_actors(observer: Observer) -> bool:
    try:
        view = observer.view()
    except ActorsError:
        return False
    return bool(view.actors()) or len(view.nodes) > 1
