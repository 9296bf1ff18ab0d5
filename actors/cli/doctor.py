"""``actors doctor``: why a device is not found or not usable."""

from __future__ import annotations

import json
from dataclasses import asdict

import click


@click.command()
@click.argument("peer", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list and nothing else on standard output.")
@click.pass_context
def doctor(context: click.Context, peer: str | None, as_json: bool) -> None:
    """Say why a device is not found or not usable, and what to do.

    With PEER, a member's name or HOST:PORT, only the way to that device is looked at, and its latency and bandwidth
    are measured. The exit status is 1 where something is not well.

    \b
    Example:
      actors doctor
      actors doctor anna --json
    """  # noqa: D301 - click wants the character itself
    from actors.doctor import examine

    findings = examine(peer)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            click.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.check}: {finding.what}")
            if finding.do:
                click.echo(f"      -> {finding.do}")
    if not all(finding.ok for finding in findings):
        context.exit(1)
