"""What a stage may make use of on its device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .openblas import ADVICE

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
        place: which of the processes of its host that want a core each this is, and of how many; None where it is none.
    """

    arithmetic: str = "auto"
    memory: int | None = None
    threads: int = 1
    place: tuple[int, int] | None = None

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

    def words(self, *, cpu: bool, linux: bool, blas: bool, wide: bool) -> str:
        """How a process computes.

        Args:
            cpu: whether on a CPU.
            linux: whether under Linux.
            blas: OpenBLAS is there.
            wide: weights are in float32.
        """
        if not cpu:
            return "on a GPU"
        if wide:
            return "float32 by OpenBLAS"
        if blas:
            return "weights as stored: float32 does not fit" if self.wide else "weights as stored"
        return f"weights as stored: {ADVICE}" if self.wide and linux else "weights as stored"


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a device said that it can do.

    Attributes:
        speed: multiplications a second of quantised weights and one vector.
        wide_speed: the same in float32 by OpenBLAS; 0 where it is not installed.
        free: bytes of memory.
        cpu: MLX computes on the CPU.
        linux: its system is Linux.
    """

    speed: float
    wide_speed: float
    free: int
    cpu: bool
    linux: bool

    def pace(self, *, wide: bool) -> float:
        """Multiplications a second, of weights in float32 where they may be and can be."""
        return self.wide_speed if wide and self.wide_speed else self.speed
