"""Arguments that are more than text: one of a few words, an address, a time, the name of an actor."""

from __future__ import annotations

import difflib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_SECONDS = 1e6  # eleven days; a wait cannot be of any length


class Word(click.Choice[str]):
    """One of a few words; for one that is nearly right the nearest is suggested."""

    def __init__(self, *words: str) -> None:
        super().__init__(words)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """See `click.ParamType`."""
        if value not in self.choices:
            close = difflib.get_close_matches(str(value), self.choices, 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            self.fail(f"{value!r} is none of {', '.join(self.choices)}.{hint}", param, ctx)
        return str(value)


class State(Word):
    """One of a few words in capitals, however it is typed."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """See `click.ParamType`."""
        return super().convert(str(value).upper(), param, ctx)


class OwnAddress(click.ParamType[str]):
    """An address of this device that something can listen at."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """See `click.ParamType`."""
        import socket

        try:
            family, kind, _, _, where = socket.getaddrinfo(str(value), 0, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind) as door:
                door.bind(where)
        except (OSError, UnicodeError):
            self.fail(f"{value!r} is no address of this device; 0.0.0.0 is all it has.", param, ctx)
        return str(value)


class Seconds(click.ParamType[float]):
    """How long something may take."""

    name = "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See `click.ParamType`."""
        seconds = 0.0
        with suppress(ValueError):
            seconds = float(value)
        if not 0 < seconds <= MOST_SECONDS:
            self.fail(f"{value!r} is no positive number of seconds.", param, ctx)
        return seconds


class Actor(click.ParamType[str]):
    """The name, the id or the class of an actor; a shell completes those there are."""

    name = "actor"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """See `click.ParamType`."""
        del ctx, param
        try:
            found = sorted(_words())
        except Exception:  # nothing runs: nothing to complete
            return []
        return [CompletionItem(word) for word in found if word.startswith(incomplete)]


def _words() -> Iterable[str]:
    from actors.observer import Observers

    with Observers() as observers:
        return {
            word for _, view in observers.views() for actor in view.actors() for word in (actor.name, actor.id) if word
        }
