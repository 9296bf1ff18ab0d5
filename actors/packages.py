"""Installed packages that code refers to: which one a process lacks, which one this process has, what mends it."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from actors.serialize import is_local

_ATTRIBUTE = re.compile(r"Can't get attribute '(?P<attribute>[^']+)' on <module '(?P<module>[^']+)'")
_NAME = re.compile(
    r"cannot import name '(?P<attribute>[^']+)' from (?:partially initialized module )?'(?P<module>[^']+)'"
)


@dataclass(frozen=True, slots=True)
class Lack:
    """What a process could not import.

    Attributes:
        module: full name of the module.
        attribute: what the module lacks; None where the module itself is missing.
        version: of the package that the process has; None where it has none.
    """

    module: str
    attribute: str | None
    version: str | None


@dataclass(frozen=True, slots=True)
class Package:
    """An installed package: its name in the registry, and its version."""

    name: str
    version: str


def travels_by_value(module: str | None) -> bool:
    """Whether code of this module is sent as it is, and not by the name of an installed package."""
    if module is None or module == "__main__":
        return True
    found = sys.modules.get(module)
    return found is None or is_local(found)  # one that came by value has no module here


def version_of(module: str) -> str:
    """Returns the version of the package that a module is of; empty where it has none, such as Python's own."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return ""
    from importlib import metadata  # late: few processes need it, and it takes long to load

    try:
        return metadata.version(top)
    except metadata.PackageNotFoundError:  # its name in the registry may be another
        package = package_of(module)
        return package.version if package is not None else ""


@lru_cache(maxsize=256)
def package_of(module: str) -> Package | None:
    """Returns the installed package that a module is of; None where there is none in this process."""
    top = module.partition(".")[0]
    from importlib import metadata

    for name in metadata.packages_distributions().get(top, ()):
        try:
            return Package(name, metadata.version(name))
        except metadata.PackageNotFoundError:  # pragma: no cover - it is being uninstalled
            continue
    return None


def lack_of(error: BaseException) -> Lack | None:
    """Returns what an error says that this process lacks; None for an error about something else."""
    module: str | None = None
    attribute: str | None = None
    if isinstance(error, ModuleNotFoundError):
        module = error.name
    elif isinstance(error, ImportError | AttributeError):
        try:
            text = str(error)
        except Exception:  # an error of the user's own may be unable to say what it is
            return None
        found = _NAME.search(text) if isinstance(error, ImportError) else _ATTRIBUTE.search(text)
        if found is not None:
            module, attribute = found["module"], found["attribute"]
    if not module or module.partition(".")[0] in {"__main__", *sys.stdlib_module_names}:
        return None
    package = package_of(module)
    return Lack(module, attribute, package.version if package is not None else None)


def advice(lack: Lack, node: str) -> str:
    """Says what this process has of what another one lacks, and how to mend it; empty where that is not known."""
    package = package_of(lack.module)
    where = f"node {node}" if node else "the other process"
    if package is None:
        path = _own_file(lack.module)
        if path is None or lack.version is not None:
            return ""
        return (
            f"{lack.module!r} is code of this program's, in {path}, and {where} has it not. "
            f"Send it along: runtime_env={{'py_modules': [{str(path)!r}]}}"
        )
    if lack.version == package.version:
        return ""
    wanted = f"{package.name}=={package.version}"
    mend = f"Run there: pip install '{wanted}'  Or give the actor runtime_env={{'pip': ['{wanted}']}}"
    if lack.version is None:
        return f"This program has {package.name} {package.version}, and {where} has none. {mend}"
    missing = f"{lack.module}.{lack.attribute}" if lack.attribute is not None else lack.module
    return (
        f"This program has {package.name} {package.version}, and {where} has {lack.version}, without {missing}. {mend}"
    )


def _own_file(module: str) -> Path | None:
    """Returns the file or folder of a module that is no installed package."""
    top = module.partition(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    where = folders[0] if folders else spec.origin
    return Path(where) if where is not None and Path(where).exists() else None


def explained(error: ImportError | AttributeError) -> Exception:
    """Returns the error for a value from elsewhere that this process cannot read, saying what it lacks."""
    lack = lack_of(error)
    if lack is None:
        return error
    top = lack.module.partition(".")[0]
    if lack.version is None:
        what = f"this process has no package {top!r}. Install it here: pip install {top}"
    else:
        what = f"this process has {top} {lack.version}, which lacks it. Install the version that the other one has"
    told = f"{error}. A value that came from another process needs it, and {what}"
    return ModuleNotFoundError(told, name=error.name) if isinstance(error, ModuleNotFoundError) else type(error)(told)
