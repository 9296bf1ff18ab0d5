"""Runtime environments: what one holds of this machine is sent to the cluster, as Ray does for programs alone."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

from ray._private.runtime_env.py_modules import upload_py_modules_if_needed
from ray._private.runtime_env.working_dir import upload_working_dir_if_needed
from ray.exceptions import RuntimeEnvSetupError

from actors.exceptions import RuntimeEnvError

log = logging.getLogger(__name__)

SENT = {"working_dir": upload_working_dir_if_needed, "py_modules": upload_py_modules_if_needed}


def sent(env: dict[str, Any] | None) -> dict[str, Any] | None:
    """Returns an environment with, for each folder, file or module of this machine, where the cluster has it now.

    Raises:
        RuntimeEnvError: one of them is not there, or cannot be sent.
    """
    if env is None or not env.keys() & SENT.keys():
        return env
    found = dict(env)
    place = env.get("working_dir")
    if isinstance(place, str | Path) and "://" not in str(place) and not Path(place).exists():
        raise RuntimeEnvError(f"runtime_env['working_dir']: {place} is no folder and no .zip file")
    with tempfile.TemporaryDirectory(prefix="actors-env-") as scratch:
        for key, send in SENT.items():
            try:
                found = send(found, include_gitignore=True, scratch_dir=scratch, logger=log)
            except (ValueError, OSError, RuntimeEnvSetupError) as error:
                raise RuntimeEnvError(f"runtime_env[{key!r}]: {error}") from error
    return found
