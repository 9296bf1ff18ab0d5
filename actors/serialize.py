"""The only module that pickles and unpickles."""

from __future__ import annotations

import copyreg
import io
import pickle
import platform
import sys
import sysconfig
from functools import cache
from importlib import import_module
from pathlib import Path
from types import CellType, CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import cloudpickle

from actors import arena, hoard, sources
from actors.exceptions import SerializationError, VersionMismatchError
from actors.holdings import Hold
from actors.large import copied
from actors.messages import PLAIN_TYPES, Payload
from actors.version import PYTHON

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actors.messages import Buffer

PROTOCOL = 5
_PICKLED = PLAIN_TYPES | {Payload}


def dumps(value: object, *, lent: bool = False) -> Payload:
    """Pickles a value as it is now; buffers of numpy and MLX arrays stay out of band, copied once if they can change.

    The payload keeps the values and actors that it mentions.

    Args:
        value: to be pickled.
        lent: nobody changes it as long as the payload is of use, so nothing is copied.

    Raises:
        SerializationError: it cannot be pickled; the message names the part that cannot.
    """
    if type(value) in PLAIN_TYPES:
        return Payload(pickle.dumps(value, PROTOCOL))
    return _dumps(value, {"": value}, lent)


def _dumps(value: object, parts: dict[str, object], lent: bool = False) -> Payload:
    """See `dumps`; ``parts`` are what an error is to name, by name."""
    buffers: list[pickle.PickleBuffer] = []
    sink = io.BytesIO()
    try:
        pickler = _Pickler(sink, protocol=PROTOCOL, buffer_callback=buffers.append)
        pickler.dump(value)
        return Payload(sink.getvalue(), _settled(buffers, buffers if lent else pickler.fixed), tuple(pickler.holds))
    except Exception as error:
        # cloudpickle turns a RecursionError into an error of its own.
        if isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError):
            raise SerializationError(
                f"a {type(value).__name__} is nested too deeply to be pickled (Python's recursion limit is "
                f"{sys.getrecursionlimit()}): send a flatter structure"
            ) from error
        raise SerializationError(_explain(parts, error)) from error


def _settled(buffers: list[pickle.PickleBuffer], fixed: list[pickle.PickleBuffer]) -> tuple[Buffer, ...]:
    """Returns the buffers as they are now, large ones in memory that other processes of this host can map.

    Sending comes later, on another thread; by then the owner may have written into a buffer.
    """
    known = {id(buffer) for buffer in fixed}
    raw = [buffer.raw() for buffer in buffers]
    loose = [
        index
        for index, (buffer, view) in enumerate(zip(buffers, raw, strict=True))
        if id(buffer) not in known and arena.segment_of(view) is None
    ]
    place = arena.current()
    stored = None
    if place is not None and sum(len(raw[index]) for index in loose) >= arena.LEAST_BYTES:
        stored = place.store([raw[index] for index in loose])
    settled: list[Buffer] = [*raw]
    for number, index in enumerate(loose):
        if stored is not None:
            settled[index] = stored[number]
        # Memory of bytes stays as it is; a read-only view says only that it is not written through that view.
        elif not isinstance(arena.owner_of(raw[index]), bytes):
            settled[index] = copied(raw[index])
    return tuple(settled)


def dumps_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Payload:
    """Pickles the arguments of a call.

    Raises:
        SerializationError: one cannot be pickled; the message names it.
    """
    if not kwargs and _are_plain(args):
        return Payload(pickle.dumps((args, kwargs), PROTOCOL))
    given = [arg for arg in args if type(arg) is not Payload]  # a task's first is its code
    named: dict[str, object] = {f"argument {number}": arg for number, arg in enumerate(given, 1)}
    return _dumps((args, kwargs), named | {f"argument {name!r}": arg for name, arg in kwargs.items()})


def _are_plain(args: tuple[Any, ...]) -> bool:
    """Whether Python's own pickling does, in a small part of the time: for plain values, and for what is pickled."""
    if PLAIN_TYPES.issuperset(map(type, args)):
        return True
    if not _PICKLED.issuperset(map(type, args)):
        return False
    return all(arg.is_bare for arg in args if type(arg) is Payload)


def dumps_if_plain(args: tuple[Any, ...]) -> Payload | None:
    """Pickles positional arguments of a call that are all of `actors.messages.PLAIN_TYPES`; None where they are not."""
    return Payload(pickle.dumps((args, {}), PROTOCOL)) if PLAIN_TYPES.issuperset(map(type, args)) else None


def dumps_plain(values: Sequence[Any]) -> Payload:
    """Pickles values that are all of `actors.messages.PLAIN_TYPES`."""
    return Payload(pickle.dumps(list(values), PROTOCOL))


def loads(payload: Payload) -> Any:
    """Unpickles a value that `dumps` made. Numpy arrays in it are read-only, but for those of objects.

    Raises:
        Exception: whatever the value's own unpickling raises.
    """
    if not payload.buffers:
        return pickle.loads(payload.pickle)
    buffers = [memoryview(buffer).toreadonly() for buffer in payload.buffers]
    if "mlx.core" not in sys.modules:
        return pickle.loads(payload.pickle, buffers=buffers)
    with hoard.room(max(buffer.nbytes for buffer in buffers)):
        return pickle.loads(payload.pickle, buffers=buffers)


def raising(error: Exception) -> bytes:
    """Returns a pickle of which `loads` raises this error."""
    return pickle.dumps(_Raising(error), PROTOCOL)


class _Raising:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return _raise, (self._error,)


def _raise(error: Exception) -> None:
    raise error


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle is untyped
    """Sends code of `__main__`, notebooks and local modules by value, installed packages by reference."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fixed: list[pickle.PickleBuffer] = []  # buffers that nobody writes to any more
        self.holds: list[Hold] = []  # what keeps the values and actors that were met
        self._inner: set[CodeType] = set()  # functions inside a function whose text has been met

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is Payload:  # a payload in a payload: its buffers stay out of band
            buffers = [pickle.PickleBuffer(buffer) for buffer in obj.buffers]
            self.fixed += buffers
            return Payload, (obj.pickle, tuple(buffers), obj.holds)
        if kind is Hold:
            self.holds.append(obj)
            return obj.parts()
        if kind.__module__ == "numpy" and kind.__name__ == "ndarray" and not obj.dtype.hasobject:
            # In these two cases numpy would pickle it in band.
            if obj.dtype.itemsize and not _lends_memory(obj):
                return _of_bytes, (obj.ravel().view("u1"), obj.dtype, obj.shape)
            if not obj.flags.forc:
                return obj.copy().__reduce_ex__(PROTOCOL)
        if kind is CodeType:
            return self._code(obj)
        if kind.__module__ == "nanobind" and kind.__name__ in {"nb_func", "nb_method"}:
            return obj.__qualname__  # MLX's functions, which say where they are and refuse to pickle
        if isinstance(obj, type | FunctionType):
            return NotImplemented if kind in _PLAIN_CODE and obj in _own else self._by_name_or_value(obj)
        if isinstance(obj, ModuleType):
            _travel_by_value(obj.__name__)
        return NotImplemented

    def _by_name_or_value(self, code: type | FunctionType) -> Any:
        _travel_by_value(getattr(code, "__module__", None))
        if (marked := _marked(code)) is not None:
            return _unmarked, marked
        if type(code) in _PLAIN_CODE and _is_own(code):
            _own.add(code)
            return NotImplemented
        return super().reducer_override(code)

    def _code(self, code: CodeType) -> tuple[Any, ...]:
        """Reduces code as cloudpickle does, and adds its text and the name of its file, which that leaves out."""
        _, arguments = self.dispatch_table[CodeType](code)
        arguments = tuple(code.co_filename if value == _NO_FILE else value for value in arguments)
        text = "" if code in self._inner else sources.text_of(code)
        if text:
            self._inner.update(sources.nested_in(code))
        return _code, (PYTHON, arguments, text)


_NO_FILE = "<dynamic-code>"

_PLAIN_CODE = {type, FunctionType}  # whose hash is no code of the program's
_own: set[type | FunctionType] = set()
"""This package's classes and functions that were met: they are in each handle and order, and go by their name."""


def _is_own(code: type | FunctionType) -> bool:
    module = getattr(code, "__module__", None)  # which is None for what `exec` has made in a bare namespace
    ours = isinstance(module, str) and module.partition(".")[0] == "actors"
    return ours and bool(cloudpickle.cloudpickle._should_pickle_by_reference(code))  # noqa: SLF001 - it offers nothing else


def _lends_memory(array: Any) -> bool:
    """Whether numpy can say in the buffer protocol's words what is in an array; not so with dates and some names."""
    try:
        memoryview(array)
    except ValueError:
        return False
    return True


def _of_bytes(flat: Any, dtype: Any, shape: tuple[int, ...]) -> Any:
    return flat.view(dtype).reshape(shape)


def _code(python: str, parts: tuple[Any, ...], text: str) -> CodeType:
    """Makes code that has travelled by value; of another minor version of Python it is other machine's code."""
    if python != PYTHON:
        raise VersionMismatchError(
            f"this code was sent by Python {python}, and node {platform.node()} runs it with Python {PYTHON}, which it "
            "cannot: put it into a package that is installed on both, or run both with the same minor version"
        )
    code = CodeType(*parts)
    sources.keep(code.co_filename, code.co_firstlineno, text)
    return code


def _marked(thing: Any) -> tuple[str, str] | None:
    """Returns module and name under which an installed package has what ``@actors.remote`` made of this."""
    module = sys.modules.get(getattr(thing, "__module__", None) or "")
    if module is None or module.__name__ == "__main__" or _by_value(module):
        return None
    found: Any = module
    for name in thing.__qualname__.split("."):
        found = getattr(found, name, None)
    inside = getattr(found, "cls", None) is thing or getattr(found, "function", None) is thing
    return (module.__name__, thing.__qualname__) if inside and found is not thing else None


def _by_value(module: ModuleType) -> bool:
    return bool(cloudpickle.cloudpickle._is_registered_pickle_by_value(module))  # noqa: SLF001 - it offers a copy only


def _unmarked(module: str, name: str) -> Any:
    found: Any = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found.cls if hasattr(found, "cls") else found.function


def travels_by_value(thing: Any) -> bool:
    """Whether a class or function is sent as code; one of an installed package is sent by its name."""
    _travel_by_value(getattr(thing, "__module__", None))
    if not isinstance(thing, FunctionType | type):  # a builtin has no code of its own
        return False
    return _marked(thing) is None and not cloudpickle.cloudpickle._should_pickle_by_reference(thing)  # noqa: SLF001 - it offers nothing else


def travels_by_name(module: ModuleType) -> bool:
    """Whether a module is imported where it is received; else all that is in it is sent."""
    _travel_by_value(module.__name__)
    return bool(cloudpickle.cloudpickle._should_pickle_by_reference(module))  # noqa: SLF001 - it offers nothing else


def globals_of(code: CodeType) -> tuple[str, ...]:
    """Returns the names of the global variables that a function sent as code takes along, where there are such."""
    return tuple(cloudpickle.cloudpickle._extract_code_globals(code))  # noqa: SLF001 - it offers nothing else


_looked_at: dict[str, ModuleType] = {}
_modules_travel = True


def agree_with(copy: ModuleType) -> None:
    """Has this package's pickler and another engine's, which is a copy of cloudpickle, know the same classes.

    Where arguments are pickled by the one and what methods raise by the other, a class of `__main__` would be another
    one each time it has travelled. Code of local modules is sent by its name from now on, as the other does.
    """
    global _modules_travel  # noqa: PLW0603 - cloudpickle's own list is the process's as well
    _modules_travel = False
    ours, theirs = vars(cloudpickle.cloudpickle), vars(copy)
    for name in ("_DYNAMIC_CLASS_TRACKER_BY_CLASS", "_DYNAMIC_CLASS_TRACKER_BY_ID"):
        if ours[name] is not theirs[name]:
            theirs[name].update(ours[name])  # a process has sent or got a class or two before it comes here
            ours[name] = theirs[name]
    ours["_DYNAMIC_CLASS_TRACKER_LOCK"] = theirs["_DYNAMIC_CLASS_TRACKER_LOCK"]


def _travel_by_value(name: str | None) -> None:
    module = sys.modules.get(name) if name is not None else None
    if name is None or module is None or name == "__main__" or _looked_at.get(name) is module or not _modules_travel:
        return
    if is_local(module):
        cloudpickle.register_pickle_by_value(module)
    _looked_at[name] = module


@cache
def _installed_roots() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    return tuple({Path(paths[key]).resolve() for key in ("stdlib", "platstdlib", "purelib", "platlib")})


def is_local(module: ModuleType) -> bool:
    """Whether a module is part of the program, and so travels by value; installed packages travel by reference."""
    file = getattr(module, "__file__", None)
    if file is None or module.__name__.partition(".")[0] in {"actors", "discovery"}:
        return False
    path = Path(file).resolve()
    if path.suffix not in {".py", ".pyc"}:  # compiled code cannot travel
        return False
    if "site-packages" in path.parts or "dist-packages" in path.parts:
        return False
    return not any(path.is_relative_to(root) for root in _installed_roots())


def _explain(parts: dict[str, object], error: BaseException) -> str:
    name, part = next((item for item in parts.items() if not _can_pickle(item[1])), next(iter(parts.items())))
    path, culprit = _find_culprit(part, name)
    where = f"{path} is a {type(culprit).__name__}, which" if path else f"a {type(culprit).__name__}"
    try:
        reason = str(error).rstrip(".")
    except Exception:  # an error of the user's own may be unable to say what it is
        reason = type(error).__name__
    return f"{where} cannot be pickled: {reason}. Leave it out, or make it where it is used."


def _find_culprit(value: object, path: str = "", depth: int = 6) -> tuple[str, object]:
    """Follows attributes and items to the smallest part that cannot be pickled."""
    if depth == 0:
        return path, value
    try:
        parts = list(_parts(value))
    except Exception:  # attributes may be computed, and another thread may be changing a dict
        return path, value
    for step, part in parts:
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
            # A cell may be empty: the variable is set later, or was deleted.
            filled = ((name, cell) for name, cell in zip(names, cells, strict=True) if cell != CellType())
            yield from ((f".<closure>.{name}", cell.cell_contents) for name, cell in filled)
            used = value.__code__.co_names
            yield from ((f".<global>.{n}", value.__globals__[n]) for n in used if n in value.__globals__)
        case type():
            yield from ((f".{name}", part) for name, part in vars(value).items() if not name.startswith("__"))
        case _:
            if isinstance(type(value).__reduce__, FunctionType):
                value.__reduce__()  # where that raises, it says more than what is inside
            yield from ((f".{name}", part) for name, part in getattr(value, "__dict__", {}).items())
            slots: list[str] = copyreg._slotnames(type(value))  # type: ignore[attr-defined]  # noqa: SLF001
            yield from ((f".{name}", getattr(value, name)) for name in slots if hasattr(value, name))


def _can_pickle(value: object) -> bool:
    try:
        _Pickler(io.BytesIO(), protocol=PROTOCOL, buffer_callback=lambda _: None).dump(value)
    except Exception:
        return False
    return True
