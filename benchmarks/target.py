"""What is called: the same object on every side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARRAY_BYTES = 64 << 20
ELEMENTS_A_PAGE = 1024  # of four bytes

Digest = tuple[int, int, int]


def make_array() -> NDArray[Any]:
    """Returns the array that travels: uint32, incompressible, the same in every process."""
    import numpy as np  # not at the top: a process that only answers small calls shall not pay for it

    return np.random.default_rng(0).integers(0, 1 << 32, ARRAY_BYTES // 4, np.uint32)


def digest(array: NDArray[Any]) -> Digest:
    """Returns size, first element and the sum of one element of each page: all memory is touched, little is read."""
    return array.nbytes, int(array[0]), int(array[::ELEMENTS_A_PAGE].sum(dtype="uint64"))


class Block:
    """The array, with a stamp in its first element that tells one transfer from the next."""

    def __init__(self) -> None:
        self._array = make_array()
        nbytes, first, total = digest(self._array)
        self._nbytes, self._rest = nbytes, total - first

    def stamped(self, stamp: int) -> NDArray[Any]:
        """Returns the array, the same one each time, with ``stamp`` in front."""
        self._array[0] = stamp
        return self._array

    def expected(self, stamp: int) -> Digest:
        """Returns the digest of the array with this stamp."""
        return self._nbytes, stamp, self._rest + stamp


def digest_mlx(array: Any) -> Digest:
    """The same of an MLX array."""
    import mlx.core as mx

    return array.nbytes, int(array[0].item()), int(array[::ELEMENTS_A_PAGE].astype(mx.uint64).sum().item())


class MlxBlock:
    """The same as an MLX array; its stamp as well."""

    def __init__(self) -> None:
        import mlx.core as mx

        self._array = mx.array(make_array())
        nbytes, first, total = digest_mlx(self._array)
        self._nbytes, self._rest = nbytes, total - first

    def stamped(self, stamp: int) -> Any:
        """Returns the array with ``stamp`` in front; MLX makes a new one."""
        import mlx.core as mx

        self._array[0] = stamp
        mx.eval(self._array)
        return self._array

    def expected(self, stamp: int) -> Digest:
        """Returns the digest of the array with this stamp."""
        return self._nbytes, stamp, self._rest + stamp


class Target:
    """The object whose methods are called from another process."""

    def __init__(self) -> None:
        self._block: Block | None = None
        self._mlx_block: MlxBlock | None = None

    def echo(self, value: int) -> int:
        """Returns what it is given."""
        return value

    def take(self, array: NDArray[Any]) -> Digest:
        """Takes an array and proves that all of it arrived."""
        return digest(array)

    def make(self, stamp: int) -> NDArray[Any]:
        """Returns the array with this stamp."""
        if self._block is None:
            self._block = Block()
        return self._block.stamped(stamp)

    def take_mlx(self, array: Any) -> Digest:
        """The same of an MLX array."""
        return digest_mlx(array)

    def make_mlx(self, stamp: int) -> Any:
        """The same as an MLX array."""
        if self._mlx_block is None:
            self._mlx_block = MlxBlock()
        return self._mlx_block.stamped(stamp)
