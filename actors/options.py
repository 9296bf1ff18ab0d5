"""What an actor asks for: one frozen value that travels whole."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

NOT_YET = {
    "num_cpus", "num_gpus", "memory", "resources", "label_selector", "lifetime", "max_restarts", "max_task_retries",
    "concurrency_groups", "max_pending_calls", "allow_out_of_order_execution", "runtime_env", "isolation",
    "checkpoint", "record", "num_returns", "retry_exceptions",
}  # fmt: skip
STRATEGIES = ("DEFAULT", "SPREAD", "PACK")


@dataclass(frozen=True, slots=True)
class ActorOptions:
    """How and where an actor shall live.

    Attributes:
        node: name or id of the node it must be on.
        name: its name, unique in its namespace.
        namespace: where the name holds; None takes that of `actors.init`.
        get_if_exists: take the actor that has the name already, if there is one.
        max_concurrency: calls that may run at once; None is 1, or 1000 for a class with async methods.
        scheduling_strategy: ``"DEFAULT"``, ``"SPREAD"`` over the nodes, or ``"PACK"`` on as few as can be.
    """

    node: str | None = None
    name: str | None = None
    namespace: str | None = None
    get_if_exists: bool = False
    max_concurrency: int | None = None
    scheduling_strategy: str = "DEFAULT"

    def merged(self, **options: Any) -> ActorOptions:
        """Returns these options with others in their place.

        Raises:
            TypeError: an option has a name nobody knows, or a value of the wrong kind.
            NotImplementedError: an option of Ray's that this version does not honour.
            ValueError: a value out of range.
        """
        known = {field.name for field in fields(self)}
        for name in options:
            if name in NOT_YET:
                raise NotImplementedError(f"the option {name!r} is not honoured yet; leave it out")
            if name not in known:
                raise TypeError(f"{name!r} is no option of an actor; there are: {', '.join(sorted(known))}")
        merged = replace(self, **options)
        merged.check()
        return merged

    def check(self) -> None:
        """Raises where a value cannot be meant."""
        for name in ("node", "name", "namespace"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise TypeError(f"{name} must be a non-empty string, not {value!r}")
        if self.get_if_exists and self.name is None:
            raise ValueError("get_if_exists=True needs a name to look for: .options(name=…, get_if_exists=True)")
        if not isinstance(self.get_if_exists, bool):
            raise TypeError(f"get_if_exists must be True or False, not {self.get_if_exists!r}")
        if self.max_concurrency is not None and not _is_count(self.max_concurrency):
            raise ValueError(f"max_concurrency must be a whole number from 1, not {self.max_concurrency!r}")
        if self.scheduling_strategy not in STRATEGIES:
            raise ValueError(
                f"scheduling_strategy must be one of {', '.join(STRATEGIES)}, not {self.scheduling_strategy!r}"
            )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
