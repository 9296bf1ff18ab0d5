"""mlx-lm in the process of a stage, which has to do with tokens alone: without what reads texts and the hub.

mlx-lm's package imports transformers and the hub's client, which takes thirty times as long as all the rest of it.
While it is imported here, stand-ins take their places. They are gone afterwards, so that whoever needs the real ones in
this process imports them as ever; what mlx-lm itself has got instead turns to the real ones when it is used.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from .extra import require_mlx_lm

if TYPE_CHECKING:
    from collections.abc import Iterator

_ABSENT: Final = ("transformers", "transformers.tokenization_utils_base", "huggingface_hub")
_OF_TEXTS: Final = "tokenizer_utils"  # mlx-lm's module that makes classes of transformers' own


def require_lean_mlx_lm() -> None:
    """Make sure that mlx-lm's models can be used, as `extra.require_mlx_lm` does; in a process of our own.

    Raises:
        ModelError: see there.
    """
    if "mlx_lm" in sys.modules or any(name in sys.modules for name in _ABSENT):
        require_mlx_lm()
        return
    with _stand_ins():
        require_mlx_lm()
    sys.modules.pop(f"mlx_lm.{_OF_TEXTS}", None)  # whoever wants it has it made with the real ones
    vars(sys.modules["mlx_lm"]).pop(_OF_TEXTS, None)


@contextmanager
def _stand_ins() -> Iterator[None]:
    made = {name: _StandIn(name) for name in _ABSENT}
    sys.modules.update(made)
    try:
        yield
    finally:
        for name, each in made.items():
            each.over = True
            if sys.modules.get(name) is each:
                del sys.modules[name]


class _StandIn(ModuleType):
    """Has whatever is asked for, as a class that may be inherited from."""

    over = False

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []  # a package, to those who import from it

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Late(name, (), {"_home": self})


class _Late(type):
    """A class in place of one whose module is not loaded: what is asked of it later is asked of the real one."""

    _home: _StandIn

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if not cls._home.over:
            return lambda *_args, **_options: None  # such as to register a class
        return getattr(getattr(import_module(cls._home.__name__), cls.__name__), name)
