"""Requirement sets: a list, or a requirements file with those it includes, as lines that mean the same elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from actors.environment import Requirements
from actors.exceptions import RuntimeEnvError

_INCLUDE = re.compile(r"(?:-r\s*|--requirement[\s=]\s*)(?P<path>.+)")
_CONSTRAINT = re.compile(r"-c\s*|--constraint[\s=]")
_COMMENT = re.compile(r"(^|\s+)#.*$")


def read_requirements(pip: Any) -> Requirements | None:
    """Reads ``runtime_env["pip"]``; None where nothing is required.

    Args:
        pip: a list of requirements, the path of a requirements file, or ``{"packages": either}``; checked before.

    Raises:
        RuntimeEnvError: a file cannot be read, or names what another device does not have.
    """
    options: tuple[str, ...] = ()
    if isinstance(pip, dict):
        options = tuple(pip.get("pip_install_options") or ())
        pip = pip["packages"]
    if isinstance(pip, list | tuple):
        lines = _clean(pip, Path.cwd(), ())
    else:
        lines = _read(Path(pip).expanduser().absolute(), ())
    return Requirements(tuple(lines), options) if lines else None


def _read(path: Path, above: tuple[Path, ...]) -> list[str]:
    if path in above:
        raise RuntimeEnvError(f"runtime_env['pip']: the requirements file {path} includes itself")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RuntimeEnvError(
            f"runtime_env['pip']: the requirements file {path} cannot be read: {error}. "
            "One requirement alone is written as a list: ['name']"
        ) from error
    return _clean(text.replace("\\\n", " ").splitlines(), path.parent, (*above, path))


def _clean(raw: Any, folder: Path, above: tuple[Path, ...]) -> list[str]:
    lines: list[str] = []
    for given in raw:
        line = _COMMENT.sub("", given).strip()
        if not line:
            continue
        if _CONSTRAINT.match(line):
            raise RuntimeEnvError(f"runtime_env['pip']: {line!r} names a file that is not sent: write its versions out")
        if include := _INCLUDE.fullmatch(line):
            lines += _read((folder / include["path"].strip()).absolute(), above)
        else:
            lines.append(line)
    return lines
