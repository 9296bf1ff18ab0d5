"""``actors generate``: the text that follows a prompt."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from actors.cli.modeling import loaded, model_options

if TYPE_CHECKING:
    from actors.cli.modeling import Loading
    from actors.models import ShardedModel


@click.command()
@model_options
@click.argument("prompt")
@click.option("--max-tokens", type=click.IntRange(min=1), default=256, show_default=True, help="How many at most.")
@click.option("--temperature", type=click.FloatRange(0, 2), default=0.0, show_default=True, help="0: the likeliest.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True, help="Nucleus.")
@click.option("--seed", type=click.IntRange(min=0), help="The same seed gives the same tokens.")
@click.option("--stop", multiple=True, help="A text to stop before; may be given several times.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else on standard output.")
def generate(model: str, prompt: str, local_nodes: int | None, loading: Loading, *, as_json: bool, **how: Any) -> None:
    """Print the text that follows PROMPT, by MODEL.

    MODEL is a .gguf file, a directory of mlx-lm or Hugging Face, the id of one on the hub, or "demo". The prompt goes
    to the model as it is, without a chat's frame ("-": read it from standard input); for a conversation see
    `actors chat`.

    \b
    Example:
      actors generate demo "The capital of France is" --max-tokens 20
      actors generate demo "Once upon a time" --local-nodes 3 --temperature 0.8 --seed 1 --json
    """  # noqa: D301 - click wants the character itself
    if prompt == "-":
        prompt = sys.stdin.read()
    if not prompt:
        raise click.UsageError("PROMPT is empty: the model needs something to go on from")
    with loaded(model, local_nodes, loading) as sharded:
        told = _told(sharded, prompt, quiet=as_json, **how)
    click.echo(json.dumps({"model": model, **told}) if as_json else "")
    if not told["text"]:
        click.echo(
            f"The answer is empty: the model ended it after {len(told['tokens'])} token(s) "
            f"({told['finish_reason']}). For a conversation try: actors chat {model}",
            err=True,
        )


def _told(model: ShardedModel, prompt: str, *, quiet: bool, **how: Any) -> dict[str, Any]:
    """The answer, as `--json` gives it; printed as it is written where that is wanted."""
    prompt_ids = model.tokenizer.encode(prompt)
    generation = model.submit(prompt_ids, **how)
    tokens, text, times = [], "", []
    try:
        for token in generation:
            times.append(time.monotonic())
            tokens.append(token.id)
            text += token.text
            if not quiet:
                click.echo(token.text, nl=False)
    finally:
        generation.cancel()
    rate = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0
    return {
        "stages": [{"node": each.node, "first": each.first, "last": each.last} for each in model.plan.stages],
        "prompt": prompt,
        "prompt_tokens": prompt_ids,
        "text": text,
        "tokens": tokens,
        "finish_reason": generation.finish_reason,
        "tokens_per_s": round(rate, 2),
    }
