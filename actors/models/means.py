"""What a stage may make use of on its device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ARITHMETIC: Final = ("auto", "stored", "float32")
_SHARE: Final = 2  # float32 weights take this part of the memory at most, so that the caches have room


@dataclass(frozen=True, slots=True)
class Means:
    """What a stage may make use of.

    Attributes:
        arithmetic: `"stored"` computes with weights as they are on disk; `"float32"`, where a CPU computes under Linux
            and OpenBLAS is installed, has them in float32; `"auto"` does so only if they fit.
        memory: bytes for weights; None for enough.
        threads: cores that a product may use.
    """

    arithmetic: str = "auto"
    memory: int | None = None
    threads: int = 1

    @property
    def wide(self) -> bool:
        """Whether weights may be in float32."""
        return self.arithmetic != "stored"

    @property
    def room(self) -> float:
        """Bytes that weights in float32 may take."""
        if self.arithmetic == "float32" or self.memory is None:
            return float("inf")
        return self.memory / _SHARE
