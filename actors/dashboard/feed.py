"""The feed: looks at a cluster for all pages that are open, and tells each what has changed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

from actors.dashboard.plain import actors_of, events_of, pulse_of
from actors.exceptions import ActorsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from actors.events import ClusterView, Event
    from actors.observer import Observer

PULSE_SECONDS = 1.0
NEWS_SECONDS = 5.0  # at most, between two looks for events
REST_SECONDS = 0.1  # at least: events of that time go out together
MOST_WAITING = 200  # messages of one page that does not read them: it is cut off and comes again
MOST_PAST = 3_000
MOST_AT_ONCE = 1_000
KEEP_ALIVE_SECONDS = 10.0


class Feed:
    """What all pages see. For one event loop; the observer, which blocks, is asked on threads.

    Args:
        find: returns the observer of the cluster; asked again where that has ended.
    """

    def __init__(self, find: Callable[[], Observer]) -> None:
        self._find = find
        self._observer: Observer | None = None
        self._pages: set[asyncio.Queue[str]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._names: dict[str, str] = {}
        self._actors = ""
        self._numbers: dict[str, int] = {}

    # -- the cluster --------------------------------------------------------------------------------------------

    async def observer(self) -> Observer:
        """Returns the observer of the cluster.

        Raises:
            ActorsError: no cluster runs.
        """
        if self._observer is None:
            self._observer = await asyncio.to_thread(self._find)
        return self._observer

    async def view(self) -> ClusterView:
        """Returns how the cluster looks just now."""
        observer = await self.observer()
        view = await asyncio.to_thread(observer.view)
        known = {actor.process for actor in view.state.actors.values()}
        known |= {process.id for node in view.nodes for process in node.processes}
        for process in known - self._names.keys():
            self._names[process] = view.name_of(process)
        return view

    def _lost(self) -> None:
        """The cluster has ended, or its node has: perhaps there is another."""
        observer, self._observer = self._observer, None
        self._numbers = {}
        if observer is not None:
            with contextlib.suppress(Exception):
                observer.close()

    async def close(self) -> None:
        """Looks no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        observer, self._observer = self._observer, None
        if observer is not None:
            await asyncio.to_thread(observer.close)

    # -- the pages ----------------------------------------------------------------------------------------------

    async def page(self) -> AsyncIterator[str]:
        """Returns what one page is told, as server-sent events, until it is closed."""
        queue: asyncio.Queue[str] = asyncio.Queue(MOST_WAITING)
        self._pages.add(queue)
        try:
            for message in await self._greeting():
                yield message
            if not self._tasks:
                self._tasks = [asyncio.create_task(self._pulses()), asyncio.create_task(self._news())]
            while queue in self._pages:
                try:
                    yield await asyncio.wait_for(queue.get(), KEEP_ALIVE_SECONDS)
                except TimeoutError:
                    yield ": still here\n\n"
        finally:
            self._pages.discard(queue)
            if not self._pages:
                for task in self._tasks:
                    task.cancel()
                self._tasks = []

    async def _greeting(self) -> list[str]:
        """Returns what a page that has just opened has missed."""
        try:
            view = await self.view()
            observer = await self.observer()
            past = await asyncio.to_thread(observer.past)
        except (ActorsError, OSError) as error:
            return [_message("gone", {"why": str(error)})]
        self._actors = _message("actors", actors_of(view))
        return [
            _message("hello", {"cluster": observer.label, "at": time.time()}),
            self._actors,
            _message("pulse", {**pulse_of(view), "at": time.time()}),
            *self._told(past[-MOST_PAST:]),
        ]

    def _told(self, events: list[Event]) -> list[str]:
        return [
            _message("events", events_of(events[begin : begin + MOST_AT_ONCE], self._names))
            for begin in range(0, len(events), MOST_AT_ONCE)
        ]

    def _tell(self, message: str) -> None:
        for page in list(self._pages):
            try:
                page.put_nowait(message)
            except asyncio.QueueFull:  # it comes again, and is told all anew
                self._pages.discard(page)

    async def _pulses(self) -> None:
        while True:
            await asyncio.sleep(PULSE_SECONDS)
            try:
                view = await self.view()
            except (ActorsError, OSError) as error:
                self._lost()
                self._tell(_message("gone", {"why": str(error)}))
                continue
            actors = _message("actors", actors_of(view))
            if actors != self._actors:
                self._actors = actors
                self._tell(actors)
            self._tell(_message("pulse", {**pulse_of(view), "at": time.time()}))

    async def _news(self) -> None:
        while True:
            try:
                observer = await self.observer()
                news = await asyncio.to_thread(observer.follow, dict(self._numbers), NEWS_SECONDS)
            except (ActorsError, OSError):
                await asyncio.sleep(PULSE_SECONDS)
                continue
            known = set(self._numbers)
            self._numbers |= {id: number for id, (_, number, _) in news.items()}
            events = [event for id, (some, _, _) in news.items() if id in known for event in some]
            for message in self._told(sorted(events, key=lambda event: event.at)):
                self._tell(message)
            await asyncio.sleep(REST_SECONDS)


def _message(kind: str, data: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"
