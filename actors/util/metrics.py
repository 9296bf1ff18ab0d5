"""Metrics of the user's own: counted in the process that counts, and read there by `snapshot`."""

from __future__ import annotations

import re
import threading
import warnings
from bisect import bisect_left
from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar, Self

from actors.events.recorder import read_from

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")

Tags = tuple[tuple[str, str], ...]
"""Tags of a series as sorted pairs of name and value."""


@dataclass(frozen=True, slots=True)
class Series:
    """One metric under one set of tags.

    Attributes:
        tags: their values by name.
        value: count of a counter, last value of a gauge, sum of what a histogram observed.
        count: how many values a histogram observed, or how often another was set.
        buckets: of a histogram: how many values were at most each boundary and above the one before; the last entry
            is of those above all. Empty for others.
    """

    tags: dict[str, str]
    value: float
    count: int
    buckets: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """A metric as it was read.

    Attributes:
        kind: ``"counter"``, ``"gauge"`` or ``"histogram"``.
        boundaries: upper ends of a histogram's buckets.
    """

    name: str
    kind: str
    description: str
    boundaries: tuple[float, ...]
    series: tuple[Series, ...]


class _Store:
    """The values of one metric of this process, whatever the number of objects that stand for it."""

    def __init__(self, name: str, kind: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self.identity = (kind, tag_keys)
        self.name = name
        self.kind = kind
        self.description = description
        self.boundaries: tuple[float, ...] = ()
        self.series: dict[Tags, Series] = {}


_lock = threading.Lock()
_stores: dict[str, _Store] = {}


def _snapshot_if_any() -> list[Reading] | None:
    return snapshot() or None


def snapshot() -> list[Reading]:
    """Returns all metrics of this process, by name."""
    with _lock:
        return [
            Reading(store.name, store.kind, store.description, store.boundaries, tuple(store.series.values()))
            for _, store in sorted(_stores.items())
        ]


class Metric:
    """What all metrics have in common. Two of one name in one process are the same metric.

    Args:
        name: letters, digits, ``_`` and ``:``. Under any other name nothing is kept, with a warning.
        description: for people.
        tag_keys: names of the tags that each value must have.

    Raises:
        ValueError: the name is empty, or another kind of metric has it, or it has other tags or boundaries there.
        TypeError: ``tag_keys`` is not a tuple of strings.
    """

    kind: ClassVar[str]

    def __init__(self, name: str, description: str = "", tag_keys: tuple[str, ...] | None = None) -> None:
        self._name = name
        self._description = description
        self._tag_keys = tag_keys or ()
        self._default_tags: dict[str, str] = {}
        if not isinstance(name, str) or not name:
            raise ValueError(f"a metric's name is a non-empty string, not {name!r}")
        if not isinstance(self._tag_keys, tuple):
            raise TypeError(f"tag_keys must be a tuple of strings, not {tag_keys!r}")
        for key in self._tag_keys:
            if not isinstance(key, str):
                raise TypeError(f"tag_keys must be a tuple of strings, not {tag_keys!r}")
        self._store = self._shared()

    def _shared(self) -> _Store | None:
        if not _NAME.fullmatch(self._name):
            warnings.warn(
                f"the metric {self._name!r} is not kept: a name has letters, digits, _ and : and begins with no digit",
                stacklevel=4,
            )
            return None
        with _lock:
            fresh = _Store(self._name, self.kind, self._description, self._tag_keys)
            store = _stores.setdefault(self._name, fresh)
        if store.identity != fresh.identity:
            kind, tags = store.identity
            raise ValueError(f"there is a {kind} {self._name!r} with the tags {tags} already: choose another name")
        return store

    def set_default_tags(self, default_tags: dict[str, str]) -> Self:
        """Sets the tags of values that are given none; returns this metric.

        Raises:
            ValueError: a tag is none of ``tag_keys``.
            TypeError: a tag's value is no string.
        """
        self._check_tags(default_tags)
        self._default_tags = default_tags
        return self

    @property
    def info(self) -> dict[str, Any]:
        """Name, description, tag keys and default tags."""
        return {
            "name": self._name,
            "description": self._description,
            "tag_keys": self._tag_keys,
            "default_tags": self._default_tags,
        }

    def _check_tags(self, tags: dict[str, str]) -> None:
        for key, value in tags.items():
            if key not in self._tag_keys:
                raise ValueError(f"{key!r} is no tag of the metric {self._name!r}: its tag_keys are {self._tag_keys}")
            if not isinstance(value, str):
                raise TypeError(f"the tag {key!r} must be a string, not {value!r}")

    def _record(self, value: float, tags: dict[str, str] | None) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise TypeError(f"the value of {self._name!r} must be a number, not {value!r}")
        if tags:
            self._check_tags(tags)
        final = {**self._default_tags, **(tags or {})}
        if missing := [key for key in self._tag_keys if key not in final]:
            raise ValueError(f"the metric {self._name!r} needs a value for the tags {', '.join(missing)}")
        if self._store is None:
            return
        key = tuple(sorted(final.items()))
        with _lock:
            self._store.series[key] = self._after(self._store.series.get(key), final, value)

    def _after(self, series: Series | None, tags: dict[str, str], value: float) -> Series:
        """Returns the series with one value more."""
        raise NotImplementedError

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), (self._name, self._description, self._tag_keys), self._default_tags)


def _restore(cls: type[Metric], arguments: tuple[Any, ...], default_tags: dict[str, str]) -> Metric:
    return cls(*arguments).set_default_tags(default_tags)


class Counter(Metric):
    """A count that only grows; see `Metric`."""

    kind = "counter"

    def inc(self, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
        """Adds ``value``, which is more than 0.

        Raises:
            ValueError: it is not, or the tags are not those of the metric.
            TypeError: it is no number.
        """
        if isinstance(value, int | float) and not value > 0:
            raise ValueError(f"a counter only grows: value must be more than 0, not {value!r}")
        self._record(value, tags)

    def _after(self, series: Series | None, tags: dict[str, str], value: float) -> Series:
        total, count = (series.value, series.count) if series is not None else (0.0, 0)
        return Series(tags, total + value, count + 1)


class Gauge(Metric):
    """A value that goes up and down, of which the last is kept; see `Metric`."""

    kind = "gauge"

    def set(self, value: float | None, tags: dict[str, str] | None = None) -> None:
        """Sets the value; None leaves it as it is.

        Raises:
            ValueError: the tags are not those of the metric.
            TypeError: it is no number.
        """
        if value is not None:
            self._record(value, tags)

    def _after(self, series: Series | None, tags: dict[str, str], value: float) -> Series:
        return Series(tags, value, (series.count if series is not None else 0) + 1)


class Histogram(Metric):
    """How many values fell into which bucket; see `Metric`.

    Args:
        boundaries: upper ends of the buckets, above 0 and rising; there is one bucket more, for what is above all.

    Raises:
        ValueError: there are no boundaries, one is not above 0, or they do not rise.
    """

    kind = "histogram"

    def __init__(
        self,
        name: str,
        description: str = "",
        boundaries: list[float] | None = None,
        tag_keys: tuple[str, ...] | None = None,
    ) -> None:
        if not boundaries:
            raise ValueError("a histogram needs boundaries: Histogram('seconds', boundaries=[0.1, 1.0])")
        if not all(isfinite(b) and b > 0 for b in boundaries) or sorted(set(boundaries)) != list(boundaries):
            raise ValueError(f"boundaries must be above 0 and rise: {boundaries!r}")
        super().__init__(name, description, tag_keys)
        self.boundaries = boundaries
        if self._store is not None:
            self._store.boundaries = self._store.boundaries or tuple(boundaries)
            if self._store.boundaries != tuple(boundaries):
                raise ValueError(f"there is a histogram {name!r} with the boundaries {self._store.boundaries} already")

    @property
    def info(self) -> dict[str, Any]:
        """As of every metric, and the boundaries."""
        return {**super().info, "boundaries": self.boundaries}

    def observe(self, value: float, tags: dict[str, str] | None = None) -> None:
        """Counts a value.

        Raises:
            ValueError: the tags are not those of the metric.
            TypeError: it is no number.
        """
        self._record(value, tags)

    def _after(self, series: Series | None, tags: dict[str, str], value: float) -> Series:
        buckets = list(series.buckets) if series is not None else [0] * (len(self.boundaries) + 1)
        buckets[bisect_left(self.boundaries, value)] += 1
        total, count = (series.value, series.count) if series is not None else (0.0, 0)
        return Series(tags, total + value, count + 1, tuple(buckets))

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (self._name, self._description, self.boundaries, self._tag_keys)
        return _restore, (type(self), arguments, self._default_tags)


read_from(_snapshot_if_any)
