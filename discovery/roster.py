"""The nodes known now, and everybody who wants to hear of changes. Thread-safe; knows no network."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from .record import Changed, Event, Found, Lost, NodeRecord

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("discovery")


class Roster:
    """Turns what is seen and lost into events.

    Each listener gets each event once and in order, on the thread that saw it; None tells it that no more will come.
    """

    def __init__(self, cluster: str | None) -> None:
        self._cluster = cluster
        self._lock = threading.Lock()
        self._records: dict[str, NodeRecord] = {}
        self._listeners: list[Callable[[Event | None], None]] = []
        self._closed = False

    def records(self) -> dict[str, NodeRecord]:
        """A copy of what is known now, by id."""
        with self._lock:
            return dict(self._records)

    def see(self, record: NodeRecord) -> None:
        """Take in a node's present record. One of another cluster counts as lost."""
        if self._cluster is not None and record.cluster != self._cluster:
            self.lose(record.id)
            return
        with self._lock:
            known = self._records.get(record.id)
            if known == record or self._closed:
                return
            self._records[record.id] = record
            listeners = list(self._listeners)
        _tell(listeners, Found(record) if known is None else Changed(record))

    def lose(self, node_id: str) -> None:
        """Take in that a node said goodbye."""
        with self._lock:
            if self._closed or self._records.pop(node_id, None) is None:
                return
            listeners = list(self._listeners)
        _tell(listeners, Lost(node_id))

    def listen(self, listener: Callable[[Event | None], None]) -> None:
        """Tell a listener of every known node as found, at once and on this thread, and then of every event."""
        with self._lock:
            for record in self._records.values():
                listener(Found(record))
            if self._closed:
                listener(None)
            else:
                self._listeners.append(listener)

    def forget(self, listener: Callable[[Event | None], None]) -> None:
        """Tell a listener nothing more."""
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)

    def close(self) -> None:
        """No more events. What is known stays readable."""
        with self._lock:
            self._closed = True
            listeners, self._listeners = self._listeners, []
        _tell(listeners, None)


def _tell(listeners: list[Callable[[Event | None], None]], event: Event | None) -> None:
    for listener in listeners:
        try:
            listener(event)
        except Exception:  # a caller's mistake must end neither discovery nor the other listeners
            _log.exception("a discovery callback failed on %r", event)
