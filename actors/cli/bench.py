"""``actors bench``: what calls and collectives cost in this cluster."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from actors.bench.measuring import Figure


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else on standard output.")
def bench(as_json: bool) -> None:
    """Measure calls and collectives of this cluster; collectives choose their way by that from then on.

    Takes half a minute. Two ranks share memory on this device; two others send streams, to another device where one is
    paired. What was fitted is kept on this device, for the groups that its programs make.

    \b
    Example:
      actors bench
      actors bench --json
    """  # noqa: D301 - click wants the character itself
    import actors
    from actors import device
    from actors.bench.measuring import measured
    from actors.costs import Costs

    figures: list[dict[str, Any]] = []
    with actors.init(log_to_driver=False):
        for found in measured():
            if isinstance(found, Costs):
                costs = found
                continue
            figures.append(asdict(found))
            if not as_json:
                click.echo(_line(found))
    kept = device.keep_costs(costs)
    if as_json:
        click.echo(json.dumps({"figures": figures, "costs": asdict(costs), "kept": str(kept)}))
        return
    click.echo(
        f"\nCollectives go by this from now on (kept in {kept}):\n"
        f"  a message inside a host {costs.near_latency * 1e6:.0f} us, arrays {costs.near_rate / 1e9:.2f} GB/s\n"
        f"  a message between hosts {costs.far_latency * 1e6:.0f} us, arrays {costs.far_rate / 1e9:.2f} GB/s\n"
        f"  adding up {costs.reduce_rate / 1e9:.2f} GB/s"
    )


def _line(figure: Figure) -> str:
    size = f"{figure.nbytes:>12,} B" if figure.nbytes else " " * 14
    rate = f"{figure.nbytes / figure.seconds / 1e9:8.2f} GB/s" if figure.nbytes >= 1 << 20 else ""
    return f"{figure.what:24}{size}{figure.seconds * 1e6:>12,.1f} us{rate}  {figure.where}"
