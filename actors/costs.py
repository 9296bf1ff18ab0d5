"""What a collective costs on the ways that ranks have to each other: a few numbers, guessed or measured."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Costs:
    """Latencies in seconds, rates in bytes a second. The defaults are those of one small machine.

    Attributes:
        near_latency: of a message between two ranks of one host.
        near_rate: at which an all-reduce of two ranks goes through shared memory.
        far_latency: of a message between two ranks that share no memory.
        far_rate: of one stream between them.
        reduce_rate: at which arrays are added up.
    """

    near_latency: float = 12e-6
    near_rate: float = 3e9
    far_latency: float = 250e-6
    far_rate: float = 0.9e9
    reduce_rate: float = 8e9

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise ValueError(f"{field.name} must be a positive number, not {value!r}")
