"""What the actor of a stage does with caches: gives them away, takes others', and has them kept twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actors.handle import ActorHandle
    from actors.refs import ObjectRef

    from .prefixes import Kept
    from .remains import Remains
    from .saved import Saved
    from .schedule import Schedule
    from .shadow import Delta, Shading
    from .stage import StageModel
    from .turns import Turns


class StageCaches:
    """The caches of a `stageactor.StageActor`, which is one of these."""

    _turns: Turns
    _model: StageModel
    _schedule: Schedule | None = None
    _shading: Shading | None = None
    _loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        from .shadow import Legacy, Shadow

        self._shadow, self._legacy = Shadow(), Legacy()

    async def _do(self, what: Callable[..., Any], *args: Any) -> Any:
        """On the thread of MLX."""
        return await asyncio.get_running_loop().run_in_executor(self._turns, what, *args)

    # -- caches, as objects ---------------------------------------------------------------------------------------

    async def hold(self, tokens: tuple[int, ...]) -> str | None:
        """Keeps the caches of a sequence that is over longer than others; in the last stage.

        Returns:
            Its key, when all stages have its caches; None where they were given up.
        """
        assert self._schedule is not None
        key = self._schedule.prefixes.hold(tokens)
        if key is not None:
            await self._schedule.settle()
        return key

    async def release(self, key: str) -> None:
        """Keeps it no longer than others; in the last stage."""
        assert self._schedule is not None
        self._schedule.prefixes.release(key)

    async def kept(self, key: str) -> int:
        """Returns how many tokens of a sequence are kept; in the last stage."""
        assert self._schedule is not None
        return self._schedule.prefixes.length(key)

    async def save(self, key: str, wanted: list[int]) -> Saved | None:
        """Returns the caches of a sequence; see `StageModel.save`."""
        saved: Saved | None = await self._do(self._model.save, key, wanted)
        return saved

    async def adopt(
        self, key: str, stages: list[ActorHandle], source: str, tokens: Sequence[int], *, late: bool = False
    ) -> bool:
        """Takes the caches of the sequence `source`, which holds `tokens`, as those of `key`.

        Args:
            key: what it is called here.
            stages: that have them: of another deployment, or those of this one, of which some were there before.
            source: what it is called there.
            tokens: its first ones, which is all that is taken.
            late: its own stages are no more; what is left of them is taken (`legacy`).

        Returns:
            Whether they have them.
        """
        from .saved import joined

        own = list(self._model.own)
        asked = [stage.left.remote(source, tokens, own) if late else stage.save.remote(source, own) for stage in stages]
        parts = await asyncio.gather(*map(awaited, asked))
        if None in parts:
            return False

        def restore() -> None:
            self._model.restore(key, joined(parts), kept=True)
            if self._shading is not None:
                self._shading.journal.add(key, tokens)

        await self._do(restore)
        return True

    async def suspend(self) -> list[Kept]:
        """Has all answers go on elsewhere; in the last stage. See `schedule.Schedule.suspend`."""
        assert self._schedule is not None
        return await self._schedule.suspend()

    async def inherit(self, kept: list[Kept]) -> None:
        """Has sequences that all stages have adopted among those that are kept; in the last stage."""
        assert self._schedule is not None
        for each in kept:
            self._schedule.keep(each.key, each.tokens, each.holds)

    async def keep(self, key: str, tokens: tuple[int, ...]) -> str | None:
        """Has a sequence that all stages have adopted among those that are kept, and holds it; in the last stage."""
        assert self._schedule is not None
        self._schedule.keep(key, tokens)
        return self._schedule.prefixes.hold(tokens)

    # -- caches, kept twice -------------------------------------------------------------------------------------------

    async def shade(self, neighbour: ActorHandle) -> None:
        """Has another stage keep a copy of what is added to the caches here from now on; see `shadow`."""
        from .shadow import Shading

        self._loop = asyncio.get_running_loop()
        self._shading = Shading(self._model, neighbour, self._do)

    async def shadow(self, delta: Delta) -> None:
        """Keeps what another stage has added to its caches."""
        await self._do(self._shadow.take, delta)

    async def settle(self) -> None:
        """Returns when the neighbour has all that is in the caches here now."""
        if self._shading is not None:
            await self._shading.settle()

    async def legacy(self) -> tuple[list[Remains], Sequence[int]]:
        """Returns what is left here of the sequences of stages before a death, and the places of the caches here."""
        return self._legacy.remains(), self._model.own

    async def left(self, key: str, tokens: Sequence[int], wanted: list[int]) -> Saved:
        """Returns what is left of the caches of a sequence, as `save` does."""
        saved: Saved = await self._do(self._legacy.save, key, tokens, wanted)
        return saved

    async def let_go(self) -> None:
        """Forgets what is left: it was taken."""
        self._legacy = type(self._legacy)()

    def _bequeath(self, shading: Shading | None) -> None:
        """Put aside what is in the caches here, and copied from a neighbour's; on the thread of MLX."""
        own = [] if shading is None else shading.journal.remains(self._model)
        self._legacy = type(self._legacy)([*own, *self._shadow.remains()])
        self._shadow = type(self._shadow)()


async def awaited(ref: ObjectRef[Any]) -> Any:
    """What a call gives."""
    return await ref
