"""A user's own code beside the layers of one answer: probes see the hidden states, steering changes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from actors.exceptions import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import mlx.core as mx

    Code = Mapping[int, Callable[[mx.array], Any]]


@dataclass(frozen=True, slots=True)
class Beside:
    """What stands beside which layers, by their numbers. It travels to the stages that have them.

    Attributes:
        probe: functions that are given the hidden state after a layer (tokens, hidden size); what they return, if it
            is not None, is told.
        steer: functions that return the hidden state to go on with.
    """

    probe: Code = field(default_factory=dict)
    steer: Code = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.probe or self.steer)

    @property
    def layers(self) -> set[int]:
        """Numbers of the layers that something stands beside."""
        return {*self.probe, *self.steer}

    def check(self, layers: int) -> None:
        """See that a model of so many layers has them.

        Raises:
            TypeError: no mapping of numbers to functions.
            ValueError: the model has no such layer.
        """
        for name, code in (("probe", self.probe), ("steer", self.steer)):
            if not hasattr(code, "items") or not all(type(each) is int and callable(code[each]) for each in code):
                raise TypeError(f"{name} is {code!r}; it must be a mapping of layer numbers to functions")
            for number in code:
                if not 0 <= number < layers:
                    raise ValueError(f"{name} names layer {number}; the model has the layers 0 to {layers - 1}")

    def within(self, first: int, last: int) -> Self:
        """What of it is beside the layers `first` to `last`."""
        probe, steer = (
            {number: code for number, code in each.items() if first <= number <= last}
            for each in (self.probe, self.steer)
        )
        return type(self)(probe, steer)


class Bystander:
    """What stands beside the layers of one sequence in one stage.

    Attributes:
        seen: what the probes returned, by layer, in the order of the tokens.
        error: what the code raised where it could not be raised at once, since others were in the same step.
    """

    def __init__(self, beside: Beside) -> None:
        self._beside = beside
        self.layers = beside.layers
        self.seen: dict[int, list[Any]] = {number: [] for number in beside.probe}
        self.error: Exception | None = None

    def passes(self, number: int, hidden: mx.array, *, alone: bool) -> mx.array:
        """The hidden state (tokens, hidden size) to go on with after a layer.

        Args:
            number: of the layer.
            hidden: what it gave.
            alone: nobody else is in this step, so that it may fail.
        """
        if self.error is not None:
            return hidden
        try:
            return self._passes(number, hidden)
        except Exception as error:
            if alone:
                raise
            self.error = error
            return hidden

    def _passes(self, number: int, hidden: mx.array) -> mx.array:
        import mlx.core as mx

        if (steer := self._beside.steer.get(number)) is not None:
            changed = steer(hidden)
            if not isinstance(changed, mx.array) or changed.shape != hidden.shape:
                got = getattr(changed, "shape", type(changed).__name__)
                raise ModelError(
                    f"steer={{{number}: …}} must return a hidden state of shape {hidden.shape}, and returned {got}"
                )
            hidden = changed.astype(hidden.dtype)
        if (probe := self._beside.probe.get(number)) is not None and (value := probe(hidden)) is not None:
            mx.eval(value)
            self.seen[number].append(value)
        return hidden
