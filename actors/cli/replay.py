"""``actors replay``: runs the recorded calls of an actor again, here and in order."""

from __future__ import annotations

import asyncio
import inspect
import json
import pdb  # noqa: T100 - the debugger is what it is for
from typing import Any

import click

from actors.record import RecordedCall, RecordError, Recording, is_same, said

LONGEST = 60


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--pdb", "debug", is_flag=True, help="Open the debugger where a call raises.")
@click.option("--break", "stop", type=int, metavar="N", help="Open the debugger at the beginning of call N.")
@click.option("--until", type=int, metavar="N", help="Stop after call N.")
@click.option("--list", "only_list", is_flag=True, help="Show what is recorded, and run nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list and nothing else on standard output.")
@click.pass_context
def replay(
    context: click.Context,
    file: str,
    *,
    debug: bool,
    stop: int | None,
    until: int | None,
    only_list: bool,
    as_json: bool,
) -> None:
    """Run the calls in FILE again, here, in the order in which they began.

    An actor with the option record=True writes such a file, and says where. The object is made anew, from the code that
    is in the file, and each call is compared with what was recorded. What a method asks of other actors is asked again.
    The exit status is 1 where a call went another way.

    \b
    Example:
      actors replay 20261128-Counter-actor-3f9c0a12b7de-0.calls
      actors replay FILE --break 12
    """  # noqa: D301 - click wants the character itself
    try:
        recording = Recording(file)
        steps = [_listed(call) for call in recording.calls] if only_list else []
        if not only_list:
            _warn(recording)
            thing = _made(recording, debug)
            for call in recording.calls:
                if until is not None and call.number > until:
                    break
                step = _run(thing, call, debug=debug, stop=call.number == stop)
                steps.append(step)
                if not as_json:
                    click.echo(_line(step))
    except RecordError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(steps))
    elif only_list:
        click.echo("\n".join(map(_line, steps)))
    if any(step["same"] is False for step in steps):
        context.exit(1)


def _warn(recording: Recording) -> None:
    import platform

    about = recording.about
    click.echo(f"{about['label']}, recorded on node {about['node']}: {len(recording.calls)} calls", err=True)
    if about["python"].split(".")[:2] != platform.python_version().split(".")[:2]:
        click.echo(f"It ran on Python {about['python']}, and this is {platform.python_version()}.", err=True)


def _made(recording: Recording, debug: bool) -> Any:
    try:
        return recording.make()
    except RecordError:
        raise
    except Exception as error:
        if debug:
            pdb.post_mortem(error.__traceback__)
        raise click.ClickException(f"the constructor raised {said(error)}") from error


def _listed(call: RecordedCall) -> dict[str, Any]:
    return {
        "number": call.number, "method": call.method, "recorded": call.outcome, "error": call.error, "same": None,
        "now": None,
    }  # fmt: skip


def _run(thing: Any, call: RecordedCall, *, debug: bool, stop: bool) -> dict[str, Any]:
    step = _listed(call)
    if call.method.startswith("__ray_"):  # of the runtime's own
        return step
    args, kwargs = call.opened()
    try:
        value = _called(getattr(thing, call.method), args, kwargs, stop=stop)
    except Exception as error:
        if debug:
            click.echo(f"call {call.number}, of {call.method}, raised {said(error)}", err=True)
            pdb.post_mortem(error.__traceback__)
        return {**step, "now": said(error), "same": said(error) == call.error}
    same = None if call.value is None and call.outcome == "VALUE" else call.outcome == "VALUE" and is_same(call, value)
    if isinstance(value, list) and _streams(getattr(type(thing), call.method, None)):
        same = None if call.outcome == "VALUE" else False
    return {**step, "now": _short(repr(value)), "same": same}


def _streams(method: Any) -> bool:
    return inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method)


def _called(method: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, stop: bool) -> Any:
    value = pdb.Pdb(nosigint=True).runcall(method, *args, **kwargs) if stop else method(*args, **kwargs)
    if inspect.iscoroutine(value):
        return asyncio.run(value)
    if inspect.isasyncgen(value):
        return asyncio.run(_all(value))
    if inspect.isgenerator(value):
        return list(value)
    return value


async def _all(values: Any) -> list[Any]:
    return [value async for value in values]


def _line(step: dict[str, Any]) -> str:
    mark = {True: "same", False: "DIFFERS", None: ""}[step["same"]]
    recorded = step["error"] or {"VALUE": "", None: "never ended"}.get(step["recorded"], step["recorded"])
    said_then = f"  recorded: {recorded}" if recorded and step["same"] is not True else ""
    return f"{step['number']:>5}  {step['method']:<20}  {mark:<7}  {step['now'] or ''}{said_then}".rstrip()


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
