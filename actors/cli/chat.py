"""``actors chat``: a conversation with a model."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from actors.cli.modeling import loaded, model_options
from actors.exceptions import ModelError

if TYPE_CHECKING:
    from actors.cli.modeling import Loading
    from actors.models import ShardedModel

_PROMPT = "> "
_HELP = "/reset begins anew, /quit ends (so does Ctrl-D), Ctrl-C stops an answer."


@click.command()
@model_options
@click.option("--system", help="What the model is told before the conversation.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=1024, show_default=True, help="Of an answer.")
@click.option("--temperature", type=click.FloatRange(0, 2), default=0.7, show_default=True, help="0: the likeliest.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=0.95, show_default=True, help="Nucleus.")
@click.option("--seed", type=click.IntRange(min=0), help="The same seed gives the same answers.")
def chat(model: str, local_nodes: int | None, loading: Loading, system: str | None, **how: Any) -> None:
    """Talk with MODEL.

    It remembers what was said. /reset begins anew, /quit or Ctrl-D ends, Ctrl-C stops an answer. Lines can be piped
    in: each one is answered.

    \b
    Example:
      actors chat demo
      echo "What is the capital of France?" | actors chat demo --local-nodes 2 --temperature 0
    """  # noqa: D301 - click wants the character itself
    with loaded(model, local_nodes, loading) as sharded:
        if not sharded.tokenizer.has_chat_template:
            raise ModelError(f"{model} was not made for conversations: it has no chat template. See `actors generate`")
        conversation = Conversation(sharded, system, how)
        if _interactive():
            click.echo(_HELP)
        while (line := _line()) is not None:
            if line and not _obey(line, conversation):
                break


class Conversation:
    """What was said so far."""

    def __init__(self, model: ShardedModel, system: str | None, how: dict[str, Any]) -> None:
        self._model = model
        self._how = how
        self._begin = [{"role": "system", "content": system}] if system is not None else []
        self._said = list(self._begin)

    def reset(self) -> None:
        """Forgets it."""
        self._said = list(self._begin)

    def say(self, text: str) -> None:
        """Prints the answer to a text as it is written. What was said before Ctrl-C stays said.

        Raises:
            ModelError: a device was lost, and the model with it.
        """
        asked = [*self._said, {"role": "user", "content": text}]
        prompt, room = self._model.tokenizer.encode_chat(asked), self._model.room
        left = room - len(prompt)
        if left < 1:
            told = f"the conversation would have {len(prompt)} tokens, this model has room for {room}"
            click.echo(f"actors: {told}. /reset begins anew.", err=True)
            return
        most = min(self._how["max_tokens"], left)
        generation = self._model.submit(prompt, **{**self._how, "max_tokens": most})
        answer = ""
        try:
            for token in generation:
                answer += token.text
                click.echo(token.text, nl=False)
        except KeyboardInterrupt:
            click.echo(" [stopped]", nl=False)
        finally:
            generation.cancel()
            click.echo()
        if generation.finish_reason == "length":
            why = "--max-tokens" if most < left else "the model has room for no more, /reset begins anew"
            click.echo(f"[cut off after {most} tokens: {why}]", err=True)
        self._said = [*asked, {"role": "assistant", "content": answer}]


def _obey(line: str, conversation: Conversation) -> bool:
    """Does what a line asks for; whether to go on."""
    match line.split(maxsplit=1)[0]:
        case "/quit" | "/exit":
            return False
        case "/reset":
            conversation.reset()
        case "/help":
            click.echo(_HELP)
        case word if word.startswith("/") and "/" not in word[1:]:
            click.echo(f"there is no {word}. {_HELP}", err=True)
        case _:
            conversation.say(line)
    return True


def _line() -> str | None:
    """The next line that the user says, without what is around it; None at the end."""
    while True:
        try:
            return input(_PROMPT if _interactive() else "").strip()
        except EOFError:
            if _interactive():
                click.echo()
            return None
        except KeyboardInterrupt:
            if not _interactive():
                raise
            click.echo(f"\n{_HELP}")


def _interactive() -> bool:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    with suppress(ImportError):
        import readline  # noqa: F401 - gives input() its arrows and its memory
    return True
