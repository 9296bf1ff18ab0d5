"""The only module that pickles and unpickles."""

from __future__ import annotations

import io
import pickle
import sys
import sysconfig
from functools import cache, lru_cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import cloudpickle

from actors.exceptions import SerializationError
from actors.messages import Payload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.messages import Buffer

PROTOCOL = 5
_PLAIN = frozenset({int, float, str, bytes, bool, type(None)})


def dumps(value: object) -> Payload:
    """Pickles a value as it is now; buffers of numpy and MLX arrays stay out of band, copied once if they may change.

    Raises:
        SerializationError: it cannot be pickled; the message names the part that cannot.
    """
    if type(value) in _PLAIN:
        return Payload(pickle.dumps(value, PROTOCOL))
    buffers: list[pickle.PickleBuffer] = []
    sink = io.BytesIO()
    try:
        _Pickler(sink, protocol=PROTOCOL, buffer_callback=buffers.append).dump(value)
        return Payload(sink.getvalue(), tuple(_settled(buffer.raw()) for buffer in buffers))
    except RecursionError as error:
        raise SerializationError(
            f"a {type(value).__name__} is nested too deeply to be pickled (Python's recursion limit is "
            f"{sys.getrecursionlimit()}): send a flatter structure"
        ) from error
    except Exception as error:
        raise SerializationError(_explain(value, error)) from error


def _settled(buffer: memoryview) -> Buffer:
    # Sending comes later, on another thread; by then the owner may have written into it.
    return buffer if buffer.readonly else bytes(buffer)


def dumps_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Payload:
    """Pickles the arguments of a call."""
    if not kwargs and all(type(argument) in _PLAIN for argument in args):
        return Payload(pickle.dumps((args, kwargs), PROTOCOL))
    return dumps((args, kwargs))


def loads(payload: Payload) -> Any:
    """Unpickles a value that `dumps` made. Arrays in it are read-only.

    Raises:
        Exception: whatever the value's own unpickling raises.
    """
    return pickle.loads(payload.pickle, buffers=[memoryview(buffer).toreadonly() for buffer in payload.buffers])


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle is untyped
    """Sends code of `__main__`, notebooks and local modules by value, installed packages by reference."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is Payload:  # a payload in a payload: its buffers stay out of band
            return Payload, (obj.pickle, tuple(pickle.PickleBuffer(buffer) for buffer in obj.buffers))
        if isinstance(obj, type | FunctionType):
            _travel_by_value(getattr(obj, "__module__", None))
        elif isinstance(obj, ModuleType):
            _travel_by_value(obj.__name__)
        return super().reducer_override(obj)


@lru_cache(maxsize=4096)
def _travel_by_value(name: str | None) -> None:
    module = sys.modules.get(name) if name is not None else None
    if module is not None and name != "__main__" and _is_local(module):
        cloudpickle.register_pickle_by_value(module)


@cache
def _installed_roots() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    return tuple({Path(paths[key]).resolve() for key in ("stdlib", "platstdlib", "purelib", "platlib")})


def _is_local(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    if file is None or module.__name__.partition(".")[0] in {"actors", "discovery"}:
        return False
    path = Path(file).resolve()
    if "site-packages" in path.parts or "dist-packages" in path.parts:
        return False
    return not any(path.is_relative_to(root) for root in _installed_roots())


def _explain(value: object, error: BaseException) -> str:
    path, culprit = _find_culprit(value)
    where = f"{path} is a {type(culprit).__name__}, which" if path else f"a {type(culprit).__name__}"
    return f"{where} cannot be pickled: {error}. Leave it out, or make it where it is used."


def _find_culprit(value: object, path: str = "", depth: int = 6) -> tuple[str, object]:
    """Follows attributes and items to the smallest part that cannot be pickled."""
    if depth == 0:
        return path, value
    for step, part in _parts(value):
        if not _can_pickle(part):
            return _find_culprit(part, path + step, depth - 1)
    return path, value


def _parts(value: object) -> Iterator[tuple[str, object]]:
    match value:
        case dict():
            yield from ((f"[{key!r}]", part) for key, part in value.items())
        case list() | tuple() | set() | frozenset():
            yield from ((f"[{index}]", part) for index, part in enumerate(value))
        case FunctionType():
            names = value.__code__.co_freevars
            cells = value.__closure__ or ()
            yield from ((f".<closure>.{name}", cell.cell_contents) for name, cell in zip(names, cells, strict=True))
            used = value.__code__.co_names
            yield from ((f".<global>.{n}", value.__globals__[n]) for n in used if n in value.__globals__)
        case type():
            yield from ((f".{name}", part) for name, part in vars(value).items() if not name.startswith("__"))
        case _:
            yield from ((f".{name}", part) for name, part in getattr(value, "__dict__", {}).items())


def _can_pickle(value: object) -> bool:
    try:
        _Pickler(io.BytesIO(), protocol=PROTOCOL, buffer_callback=lambda _: None).dump(value)
    except Exception:
        return False
    return True
