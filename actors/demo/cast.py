"""The actors of the demonstration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Counter:
    """Counts, and asks another counter to."""

    def __init__(self) -> None:
        self._value = 0

    def add(self, amount: int = 1) -> int:
        """Adds to the count and returns it."""
        self._value += amount
        return self._value

    def tell(self, other: Any, amount: int) -> int:
        """Has another counter add, straight from this actor; returns its count."""
        from actors import get

        count: int = get(other.add.remote(amount))
        return count


class Mathematician:
    """Counts primes alone, and adds arrays up with its group."""

    def primes(self, bounds: tuple[int, int]) -> int:
        """Returns how many primes are from the first bound up to, but not including, the second."""
        return sum(n > 1 and all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(*bounds))

    def sum_of_ranks(self, length: int) -> NDArray[Any]:
        """All-reduces an array of this actor's rank, counted from 1, with those of the others."""
        import numpy as np

        from actors import collective

        mine = np.full(length, collective.get_rank() + 1, dtype=np.float32)
        total: NDArray[Any] = collective.allreduce(mine)
        collective.barrier()
        return total
