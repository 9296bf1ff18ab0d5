"""torch's gloo as what carries the values that ranks on Ray send each other, where their processes have torch.

Its sends and receives are of bytes whose number both sides know: a frame of fixed size goes first, which says what
follows, and holds all of a small message. Its connections are plain TCP, without encryption, as Ray's own are.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from datetime import timedelta
from importlib.util import find_spec
from struct import Struct
from typing import TYPE_CHECKING, Any

import numpy as np

from actors import pages
from actors.messages import Payload
from actors.serialize import dumps, loads

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

FRAME_BYTES = 1024
_LENGTHS = Struct("<IQ")  # of the pickle, and how many arrays follow it
_SIZE = Struct("<Q")
_ROOM = FRAME_BYTES - _LENGTHS.size
_FOREVER = timedelta(days=365)  # deadlines are the groups', and a lost connection is told at once
_OPS = frozenset({"sum", "product", "mean"})
_DTYPES = frozenset({"float32", "float64", "int8", "uint8", "int32", "int64"})
_GOODBYE = 0  # as the length of a pickle


def is_there() -> bool:
    """Whether this process has torch."""
    return find_spec("torch") is not None


def reduces(op: str, dtype: str) -> bool:
    """Whether gloo reduces so to what numpy would: it rounds half floats at each step, and takes a nan for a number."""
    return op in _OPS and dtype in _DTYPES


class Meeting:
    """Where the ranks of a group find each other: rank 0 makes it, and tells the others its address."""

    def __init__(self, host: str, port: int, seconds: float) -> None:
        import torch.distributed as dist

        left = timedelta(seconds=max(seconds, 1.0))
        self.store = dist.TCPStore(host, port, is_master=port == 0, timeout=left, wait_for_workers=False)
        self.address = host, self.store.port


class Lanes:
    """Gloo's connections of one rank to the others of its group.

    Args:
        meeting: where they find each other.
        host: this rank's own address.
        rank: its number.
        size: how many there are.
        came: called with the rank, number, tag and value of each message, on a thread of its own.
        lost: called with the rank whose connection is lost.
    """

    def __init__(  # noqa: PLR0917 - one place makes it
        self,
        meeting: Meeting,
        host: str,
        rank: int,
        size: int,
        came: Callable[[int, int, str, Any], None],
        lost: Callable[[int], None],
    ) -> None:
        import torch.distributed as dist

        options = dist.ProcessGroupGloo._Options()  # noqa: SLF001 - there is no other way to name the interface
        options._devices = [dist.ProcessGroupGloo.create_device(hostname=host)]  # noqa: SLF001
        options._timeout = _FOREVER  # noqa: SLF001
        self._meeting = meeting
        self._gloo = dist.ProcessGroupGloo(meeting.store, rank, size, options)
        self._came, self._lost = came, lost
        others = [other for other in range(size) if other != rank]
        self._sending = {other: threading.Lock() for other in others}
        self._under_way: dict[int, deque[tuple[Any, Any]]] = {other: deque() for other in others}
        for other in others:
            threading.Thread(target=self._read, args=(other,), name=f"gloo-{other}", daemon=True).start()

    def send(self, dst: int, number: int, tag: str, value: object, *, lent: bool) -> None:
        """Hands a value over for a rank.

        Raises:
            RuntimeError: the connection is lost.
        """
        payload = dumps((number, tag, value), lent=lent)
        told = payload.pickle
        arrays = [np.frombuffer(buffer, np.uint8) for buffer in payload.buffers]
        sizes = b"".join([_SIZE.pack(array.size) for array in arrays])
        text = np.frombuffer(sizes + told, np.uint8)
        frame = np.empty(FRAME_BYTES, np.uint8)
        frame[: _LENGTHS.size] = np.frombuffer(_LENGTHS.pack(len(told), len(arrays)), np.uint8)
        frame[_LENGTHS.size : _LENGTHS.size + min(text.size, _ROOM)] = text[:_ROOM]
        self._post(dst, [frame, text[_ROOM:], *arrays])

    def _post(self, dst: int, parts: list[npt.NDArray[np.uint8]]) -> None:
        import torch

        under_way = self._under_way[dst]
        with self._sending[dst]:
            while under_way and under_way[0][0].is_completed():
                under_way.popleft()
            for part in filter(len, parts):
                tensor = torch.from_numpy(part if part.flags.writeable else part.copy())
                under_way.append((self._gloo.send([tensor], dst, 0), tensor))  # it must outlive the sending

    def all_reduce(self, op: str, flat: npt.NDArray[Any]) -> tuple[Any, npt.NDArray[Any]]:
        """Begins gloo's own all-reduce; returns it, as torch's work, and the array that will hold the result."""
        import torch
        import torch.distributed as dist

        result = pages.empty(flat.size, flat.dtype)
        np.copyto(result, flat)
        options = dist.AllreduceOptions()
        options.reduceOp = dist.ReduceOp.PRODUCT if op == "product" else dist.ReduceOp.SUM
        return self._gloo.allreduce([torch.from_numpy(result)], options), result

    def close(self) -> None:
        """Says goodbye, by which the others' threads end."""
        for other in self._sending:
            with contextlib.suppress(RuntimeError):
                self._post(other, [np.zeros(FRAME_BYTES, np.uint8)])

    def _read(self, src: int) -> None:
        try:
            while (message := self._received(src)) is not None:
                self._came(src, *message)
        except Exception:  # gloo tells by a RuntimeError that the other process has ended
            self._lost(src)

    def _received(self, src: int) -> tuple[int, str, Any] | None:
        frame = self._taken(src, FRAME_BYTES).tobytes()
        length, count = _LENGTHS.unpack_from(frame)
        if length == _GOODBYE:
            return None
        whole = count * _SIZE.size + length
        text = frame[_LENGTHS.size : _LENGTHS.size + min(whole, _ROOM)]
        if whole > _ROOM:
            text += self._taken(src, whole - _ROOM).tobytes()
        sizes = [_SIZE.unpack_from(text, index * _SIZE.size)[0] for index in range(count)]
        arrays = tuple([self._taken(src, size).data if size else b"" for size in sizes])
        number, tag, value = loads(Payload(text[count * _SIZE.size :], arrays))
        return number, tag, value

    def _taken(self, src: int, nbytes: int) -> npt.NDArray[np.uint8]:
        import torch

        taken = pages.empty(nbytes, pages.BYTE)
        self._gloo.recv([torch.from_numpy(taken)], src, 0).wait()
        return taken
