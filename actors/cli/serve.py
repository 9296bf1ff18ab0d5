"""``actors serve``: OpenAI's HTTP API over a model."""

from __future__ import annotations

import secrets
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from actors.cli.modeling import find_model, load, model_options, nodes_for_models
from actors.exceptions import ActorsError

if TYPE_CHECKING:
    import socket

    from actors.cli.modeling import Loading


@click.command()
@model_options
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0 for all there are.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any that is free.")
@click.option("--name", help="What clients call the model [default: MODEL, without its folders].")
@click.option(
    "--max-requests",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="How many may be under way or waiting; more are told to come again (429).",
)
@click.option("--api-key", envvar="ACTORS_API_KEY", show_envvar=True, help="What clients have to show.")
def serve(
    model: str,
    local_nodes: int | None,
    loading: Loading,
    *,
    host: str,
    port: int,
    name: str | None,
    api_key: str | None,
    max_requests: int,
) -> None:
    """Serve MODEL by OpenAI's HTTP API, at /v1.

    On this machine alone no key is needed, and any will do. Beyond it one is: without --api-key, one is made and
    shown. It goes over the network in the clear, as all of HTTP does.

    \b
    Example:
      actors serve demo --local-nodes 3
      curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\
        -d '{"model": "demo", "messages": [{"role": "user", "content": "What is the capital of France?"}]}'
    """  # noqa: D301 - click wants the character itself
    signal.signal(signal.SIGTERM, _end)  # until the server takes it
    if api_key is not None and not api_key.strip():
        raise click.UsageError("the API key is empty: leave --api-key and ACTORS_API_KEY out, and one is made")
    listen, server_class, is_loopback = _parts()
    path, options = find_model(model), loading.options()
    with listen(host, port) as door, nodes_for_models(local_nodes):
        local = is_loopback(door.getsockname()[0])
        key = api_key or (None if local else secrets.token_urlsafe(32))
        _say_where(door, host, name or _name(model, path), key if key != api_key else None)
        server = server_class(
            lambda: load(path, max_requests=max_requests, **options),
            _names(model, path, name),
            door,
            key=key,
            on_ready=lambda: click.echo(f"{model} is loaded and answers. Ctrl-C ends it."),
        )
        sign = server.run()
    if sign == signal.SIGINT:
        raise KeyboardInterrupt


def _parts() -> tuple[Any, Any, Any]:
    try:
        from actors.models.serving import Server, listen
        from actors.models.serving.guard import is_loopback
    except ImportError as error:
        raise ActorsError(
            f"a server needs what is not installed ({error}); run: pip install 'mlx-actors[serve]'"
        ) from error
    return listen, Server, is_loopback


def _name(model: str, path: str) -> str:
    return model if not Path(model).expanduser().exists() else Path(path).absolute().name.removesuffix(".gguf")


def _names(model: str, path: str, name: str | None) -> tuple[str, ...]:
    """The name that is shown, and others that clients may use."""
    return tuple(dict.fromkeys((name or _name(model, path), _name(model, path), model)))


def _say_where(door: socket.socket, host: str, name: str, key: str | None) -> None:
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"Serving {name} at http://{shown}:{door.getsockname()[1]}/v1, as soon as it is loaded.")
    if key is not None:
        click.echo(f"API key, shown once: {key}")
    sys.stdout.flush()


def _end(sign: int, frame: object) -> NoReturn:
    del sign, frame
    sys.exit(0)
