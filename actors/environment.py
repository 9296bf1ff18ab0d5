"""What `runtime_env` may hold, and what travels of it: the environment of a worker process, as data."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING

from actors.exceptions import ArgumentError
from actors.frozen import travelling

if TYPE_CHECKING:
    from actors.address import Address

KEYS = {
    "env_vars": "environment variables",
    "working_dir": "a folder, or .zip file",
    "py_modules": "folders, .py files, .whl files or modules",
    "excludes": "what of those folders to leave out, as in .gitignore",
    "pip": "requirements",
}

# Known from Ray, and not here: a program that gives one must not believe that it has what it asked for.
NOT_HERE = {
    "conda": "use 'pip', or start the node from the environment you want",
    "uv": "use 'pip': the same requirements do",
    "container": "start the node in the container",
    "image_uri": "start the node in the container",
    "java_jars": "actors are Python objects",
    "py_executable": "start the node by the Python you want",
    "worker_process_setup_hook": "do it in the actor's constructor",
    "config": "an environment has a fixed time to be made in",
    "nsight": "actors are not profiled this way",
    "rocprof_sys": "actors are not profiled this way",
    "mpi": "use a group of actors and actors.collective",
}
_PIP_KEYS = {"packages", "pip_install_options", "pip_check", "pip_version"}
_REMOTE = re.compile(r"[a-z][a-z0-9+.-]+://")

MAKE_SECONDS = 60.0
PIP_SECONDS = 600.0


def check_environment(env: object) -> None:
    """Checks a ``runtime_env`` as the user wrote it; no file is looked at.

    Raises:
        ArgumentError: a value is of the wrong kind; a TypeError and a ValueError.
        ValueError: a key nobody knows, or a value that cannot be meant.
        NotImplementedError: a key of Ray's that is not honoured here.
    """
    if env is None:
        return
    if not isinstance(env, dict):
        raise ArgumentError(f"runtime_env must be a dict, not {env!r}")
    for key in env:
        if key in NOT_HERE:
            raise NotImplementedError(f"runtime_env[{key!r}] is not honoured: {NOT_HERE[key]}; leave it out")
        if key not in KEYS:
            there = "; ".join(f"{name!r} ({what})" for name, what in KEYS.items())
            raise ValueError(f"runtime_env has no key {key!r}; there are: {there}")
    _check_variables(env.get("env_vars"))
    _check_path("working_dir", env.get("working_dir"))
    _check_modules(env.get("py_modules"))
    _check_strings("excludes", env.get("excludes"))
    if env.get("excludes") and not (env.get("working_dir") or env.get("py_modules")):
        raise ValueError(
            "runtime_env['excludes'] says what of working_dir or py_modules to leave out: give one of them"
        )
    _check_pip(env.get("pip"))


def _check_variables(variables: object) -> None:
    if variables is None:
        return
    if not isinstance(variables, dict):
        raise ArgumentError(f"runtime_env['env_vars'] must be a dict of strings, not {variables!r}")
    for name, value in variables.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ArgumentError(
                f"runtime_env['env_vars'] must be a dict of strings, such as {{'OMP_NUM_THREADS': '4'}}: "
                f"{name!r} is {value!r}"
            )
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"runtime_env['env_vars']: no environment variable can be {name!r} = {value!r}")


def _check_path(key: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ArgumentError(f"runtime_env[{key!r}] must be the path of a folder or file, not {value!r}")
    if _REMOTE.match(str(value)):
        raise NotImplementedError(f"runtime_env[{key!r}]: {value!r} is not fetched from there: give a local path")


def _check_modules(modules: object) -> None:
    if modules is None:
        return
    if not isinstance(modules, list | tuple):
        raise ArgumentError(f"runtime_env['py_modules'] must be a list of paths or modules, not {modules!r}")
    for module in modules:
        if not isinstance(module, ModuleType):
            _check_path("py_modules", module)


def _check_strings(key: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ArgumentError(f"runtime_env[{key!r}] must be a list of strings, not {value!r}")


def _check_pip(pip: object) -> None:
    if isinstance(pip, dict):
        if unknown := pip.keys() - _PIP_KEYS:
            raise ValueError(f"runtime_env['pip'] has no key {min(map(str, unknown))!r}; there is: 'packages'")
        for key in ("pip_check", "pip_version"):
            if pip.get(key):
                raise NotImplementedError(f"runtime_env['pip'][{key!r}] is not honoured; leave it out")
        if "packages" not in pip:
            raise ValueError("runtime_env['pip'] must have the key 'packages', a list of requirements")
        _check_strings("pip']['pip_install_options", pip.get("pip_install_options"))
        pip = pip["packages"]
    if isinstance(pip, str | os.PathLike):
        _check_path("pip", pip)
    else:
        _check_strings("pip", pip)


@travelling
@dataclass(frozen=True, slots=True)
class Parcel:
    """A packed folder or file, which a node asks for once.

    Attributes:
        digest: hash of the names and contents; equal ones are equal.
        label: what it was made of, for messages.
        source: the process that packed it and hands it out.
    """

    digest: str
    label: str = field(compare=False)
    source: Address = field(compare=False)


@travelling
@dataclass(frozen=True, slots=True)
class Requirements:
    """What pip is to install.

    Attributes:
        lines: of a requirements file, without comments.
        options: further words for ``pip install``.
    """

    lines: tuple[str, ...]
    options: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Hash of the set: in another order it is the same."""
        return hashlib.sha256(repr((sorted(set(self.lines)), self.options)).encode()).hexdigest()


@travelling
@dataclass(frozen=True, slots=True)
class Environment:
    """What a worker process is started in. None stands for what was not said, and is inherited.

    Attributes:
        env_vars: environment variables; ``${NAME}`` stands for the node's own value.
        working_dir: its current folder, and the front of ``sys.path``.
        py_modules: folders that follow on ``sys.path``.
        pip: what is installed for it alone.
    """

    env_vars: dict[str, str] = field(default_factory=dict)
    working_dir: Parcel | None = None
    py_modules: tuple[Parcel, ...] | None = None
    pip: Requirements | None = None

    def over(self, base: Environment | None) -> Environment:
        """Returns this environment with what it leaves out taken from ``base``; variables are merged by name."""
        if base is None:
            return self
        return Environment(
            {**base.env_vars, **self.env_vars},
            self.working_dir if self.working_dir is not None else base.working_dir,
            self.py_modules if self.py_modules is not None else base.py_modules,
            self.pip if self.pip is not None else base.pip,
        )

    @property
    def parcels(self) -> tuple[Parcel, ...]:
        """All that has to be on the node, in the order of ``sys.path``."""
        first = () if self.working_dir is None else (self.working_dir,)
        return first + (self.py_modules or ())

    @property
    def seconds(self) -> float:
        """How long it may take a node to make it."""
        return MAKE_SECONDS + (PIP_SECONDS if self.pip is not None else 0.0)
