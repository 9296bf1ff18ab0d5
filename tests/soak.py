"""The long run: calls by relays and straight, with every fault at random, and a ledger of what became of each.

    python tests/soak.py --seconds 3600 --seed 7

Each actor writes the number of each call into a file as it runs it, which outlives the actor. At the end of its life
the file is held against what its caller was told: no call is lost, none is run twice or out of order, and none runs of
which it was said that it never started. Python's random numbers are seeded; the moments of a fault are not.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parent))

from relay import BACK, THERE, Detour

import actors
from actors.exceptions import ActorDiedError, TaskCancelledError, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

LANES = ("socket", "door", "straight")
IN_FLIGHT = 200
PATIENCE = 120.0
NOTHING, VALUE, MAY_HAVE_RUN, NEVER_STARTED, CANCELLED = range(5)
NODES = 3


@actors.remote
class Writer:
    """Writes down each call that runs."""

    def __init__(self, path: str) -> None:
        self.log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def run(self, number: int, data: bytes) -> tuple[int, bytes]:
        os.write(self.log, number.to_bytes(8, "little"))
        return number, data

    def pid(self) -> int:
        return os.getpid()


@dataclass
class Ledger:
    """What has become of all calls.

    Attributes:
        counts: ``made``, ``run``, ``replied``, ``may have run``, ``never started``, ``cancelled``; and, to stay 0,
            ``lost`` (no answer, or answered and not run), ``repeated``, ``out of order``, ``broken`` (was said never to
            have started and ran), ``wrong`` (another answer than its own).
        faults: how often each was made.
    """

    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def close(self, outcomes: bytearray, log: np.ndarray[Any, Any], wrong: int) -> None:
        """Takes in the life of one actor."""
        told = np.frombuffer(outcomes, np.uint8)
        ran = np.zeros(len(told), bool)
        ran[log] = True
        unique = np.unique(log)
        with self.lock:
            self.counts.update({
                "made": len(told), "run": len(unique), "replied": int((told == VALUE).sum()), "wrong": wrong,
                "may have run": int((told == MAY_HAVE_RUN).sum()), "cancelled": int((told == CANCELLED).sum()),
                "never started": int((told == NEVER_STARTED).sum()),
                "lost": int((told == NOTHING).sum() + ((told == VALUE) & ~ran).sum()),
                "repeated": len(log) - len(unique),
                "out of order": int((np.diff(log) < 0).sum()),
                "broken": int(((told == NEVER_STARTED) & ran).sum()),
            })  # fmt: skip

    @property
    def clean(self) -> bool:
        """Whether all promises were kept."""
        return not any(self.counts[what] for what in ("lost", "repeated", "out of order", "broken", "wrong"))

    def __str__(self) -> str:
        rows = [f"  {name:<14}{count:>12,}" for name, count in self.counts.items()]
        return "\n".join(["calls", *rows, "faults", *(f"  {n:<34}{c:>6}" for n, c in sorted(self.faults.items()))])


class Stream:
    """One caller, on a thread of its own, and its actor: a new one whenever that has been killed."""

    def __init__(self, number: int, folder: Path, ledger: Ledger, over: threading.Event, seed: int) -> None:
        self.lane = LANES[number % len(LANES)]
        self.node = number % NODES
        self.pid = 0
        self.detour: Detour | None = None
        self.error: BaseException | None = None
        self._random = random.Random(f"{seed}/{number}")
        self._path = folder / f"log-{number}"
        self._ledger = ledger
        self._over = over
        self._handle: Any = None
        self.thread = threading.Thread(target=self._run, name=f"stream-{number}")
        self.thread.start()

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                self._live()
        except BaseException as error:  # told by the main thread
            self.error = error
            self._over.set()

    def _live(self) -> None:
        """Calls one actor until it has been killed."""
        self._path.unlink(missing_ok=True)
        nodes = actors.nodes()
        handle = Writer.options(node=nodes[self.node].id).remote(str(self._path))
        self.pid = actors.get(handle.pid.remote(), timeout=PATIENCE)
        outcomes = bytearray()
        wrong = 0
        open_calls: deque[tuple[int, bytes, Any]] = deque()
        with contextlib.ExitStack() as stack:
            if self.lane != "straight":
                self.detour = stack.enter_context(Detour(handle, self.lane))
                stack.callback(setattr, self, "detour", None)
            alive = True
            while open_calls or (alive and not self._over.is_set()):
                while alive and len(open_calls) < IN_FLIGHT and not self._over.is_set():
                    open_calls.append(self._call(handle, len(outcomes)))
                    outcomes.append(NOTHING)
                for _ in range(max(1, len(open_calls) // 2)):
                    number, data, ref = open_calls.popleft()
                    outcomes[number], right = self._outcome(ref, (number, data))
                    wrong += not right
                    alive = alive and outcomes[number] in {VALUE, CANCELLED}
        self.pid = 0
        actors.kill(handle)
        log = np.fromfile(self._path, "<i8") if self._path.exists() else np.zeros(0, np.int64)
        self._ledger.close(outcomes, log, wrong)

    def _call(self, handle: Any, number: int) -> tuple[int, bytes, Any]:
        dice = self._random.random()
        data = self._random.randbytes(2 << 20 if dice < 0.002 else 60_000 if dice < 0.02 else 20)
        detour = self.detour
        ref = handle.run.remote(number, data) if detour is None else detour.call("run", number, data)
        if dice > 0.99:
            actors.cancel(ref)
        return number, data, ref

    @staticmethod
    def _outcome(ref: Any, expected: tuple[int, bytes]) -> tuple[int, bool]:
        try:
            value = actors.get(ref, timeout=PATIENCE)
        except TaskCancelledError:
            return CANCELLED, True
        except ActorDiedError as error:
            return NEVER_STARTED if error.verdict is Verdict.NEVER_STARTED else MAY_HAVE_RUN, True
        return VALUE, value == expected


class Faults:
    """Makes faults, one after the other, at random."""

    def __init__(self, streams: list[Stream], ledger: Ledger, over: threading.Event, seed: int) -> None:
        self._streams = streams
        self._ledger = ledger
        self._over = over
        self._random = random.Random(seed)

    def run(self, seconds: float) -> None:
        """Goes on for so long."""
        until = time.monotonic() + seconds
        kinds: list[tuple[int, Callable[[Stream], str | None]]] = [
            (30, self._cut), (8, self._half_close), (15, self._hold), (6, self._lose), (8, self._delay),
            (8, self._throttle), (8, self._stop_actor), (6, self._kill_actor), (2, self._stop_node),
        ]  # fmt: skip
        while time.monotonic() < until and not self._over.is_set():
            self._over.wait(self._random.uniform(0.02, 0.5))
            (kind,) = self._random.choices([kind for _, kind in kinds], [weight for weight, _ in kinds])
            with contextlib.suppress(OSError, RuntimeError, AttributeError):  # that actor's life has just ended
                made = kind(self._random.choice(self._streams))
                if made:
                    self._ledger.faults[made] += 1

    def _pause(self, least: float, most: float) -> None:
        self._over.wait(self._random.uniform(least, most))

    def _cut(self, stream: Stream) -> str | None:
        if stream.detour is None:
            return None
        stream.detour.relay.cut()
        return f"cut ({stream.lane})"

    def _half_close(self, stream: Stream) -> str | None:
        if stream.detour is None:
            return None
        stream.detour.relay.half_close(self._random.choice([THERE, BACK]))
        return f"half closed ({stream.lane})"

    def _hold(self, stream: Stream) -> str | None:
        if stream.detour is None:
            return None
        relay = stream.detour.relay
        relay.hold(*self._random.choice([(THERE,), (BACK,), (THERE, BACK)]))
        self._pause(0.05, 1.5)
        if self._random.random() < 0.5:
            relay.cut()  # what was held is lost
        relay.let_go()
        return f"held ({stream.lane})"

    def _lose(self, stream: Stream) -> str | None:
        if stream.lane != "door" or stream.detour is None:  # nothing but a process's end breaks a real Unix socket
            return None
        relay = stream.detour.relay
        relay.lose()
        self._pause(1, 9)
        relay.lose(False)
        return "a cable pulled (door)"

    def _delay(self, stream: Stream) -> str | None:
        if stream.detour is None:
            return None
        relay = stream.detour.relay
        relay.delay(self._random.uniform(0.001, 0.1))
        self._pause(0.2, 1)
        relay.delay(0)
        return f"delayed ({stream.lane})"

    def _throttle(self, stream: Stream) -> str | None:
        if stream.detour is None:
            return None
        relay = stream.detour.relay
        relay.throttle(self._random.uniform(1 << 18, 1 << 22))
        self._pause(0.2, 1)
        relay.throttle(0)
        return f"throttled ({stream.lane})"

    def _stop_actor(self, stream: Stream) -> str | None:
        pid = stream.pid
        if not pid:
            return None
        os.kill(pid, signal.SIGSTOP)
        try:
            self._pause(0.05, 3)
        finally:
            os.kill(pid, signal.SIGCONT)
        return "actor stopped"

    def _kill_actor(self, stream: Stream) -> str | None:
        pid = stream.pid
        if not pid:
            return None
        os.kill(pid, signal.SIGKILL)
        return f"actor killed ({stream.lane})"

    def _stop_node(self, _: Stream) -> str | None:
        pid = actors.nodes()[-1].pid
        os.kill(pid, signal.SIGSTOP)
        try:
            self._pause(0.5, 8)
        finally:
            os.kill(pid, signal.SIGCONT)
        return "node stopped"


class _Mallinfo(ctypes.Structure):
    """What glibc's ``mallinfo2`` returns."""

    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
    )]  # fmt: skip


def weight() -> str:
    """How large this process is: with what glibc keeps free among what is used, which grows for hours, and without."""
    gc.collect()
    resident = f"{psutil.Process().memory_info().rss >> 20} MiB"
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except AttributeError:  # no glibc, or an old one
        return resident
    mallinfo.restype = _Mallinfo
    heap = mallinfo()
    used, free = (heap.uordblks + heap.hblkhd) >> 20, heap.fordblks >> 20
    return f"{resident} ({used} used and {free} free in C's heap, {sys.getallocatedblocks():,} blocks of Python's)"


def soak(seconds: float, seed: int, streams: int = 6) -> Ledger:
    """Runs for so long, on a cluster of its own; returns the ledger."""
    ledger, over = Ledger(), threading.Event()
    with actors.init(local_nodes=NODES, log_to_driver=False), tempfile.TemporaryDirectory(prefix="soak-") as folder:
        callers = [Stream(number, Path(folder), ledger, over, seed) for number in range(streams)]
        try:
            time.sleep(min(5.0, seconds / 4))
            before = weight()
            Faults(callers, ledger, over, seed).run(seconds)
        finally:
            over.set()
            for caller in callers:
                caller.thread.join(2 * PATIENCE)
        print(f"memory of the driver: {before}, then {weight()}", flush=True)
    for caller in callers:
        if caller.error is not None:
            raise caller.error
        assert not caller.thread.is_alive(), "a caller hangs"
    return ledger


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    arguments = parser.parse_args()
    print(f"{arguments.seconds:g} s of faults, seed {arguments.seed}", flush=True)
    ledger = soak(arguments.seconds, arguments.seed)
    print(f"seed {arguments.seed}\n{ledger}")
    if not ledger.clean:
        sys.exit("promises were broken")


if __name__ == "__main__":
    main()
