"""Logging as JSON: one object a line, with where it was said, for whatever collects logs."""

from __future__ import annotations

import json
import logging
import os
import traceback
from datetime import UTC, datetime
from typing import Any

from actors import runtime

WISH = "ACTORS_LOG"
"""Environment variable; ``json`` there: nodes and actors of a program log as JSON, from level INFO on."""

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Formats records of `logging` as JSON: time, level, logger, message, and which node, actor and method said it.

    What a program gives as ``extra=`` stands beside these, as far as JSON has it, else as its `repr`.

    Example:
        handler = logging.StreamHandler()
        handler.setFormatter(JsonFormatter())
        logging.basicConfig(handlers=[handler], level=logging.INFO)
    """

    def format(self, record: logging.LogRecord) -> str:
        """Returns a record as one line."""
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
            **where(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            said["exception"] = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        said |= {name: value for name, value in vars(record).items() if name not in _PLAIN and name not in said}
        return json.dumps(said, default=repr, ensure_ascii=False)


def where() -> dict[str, str]:
    """Returns on which node, in which actor and for which call the calling code runs, as far as it does."""
    found: dict[str, str] = {}
    actor, call, process = runtime.myself(), runtime.running(), runtime.joined()
    if process is not None:
        found["node"] = process.address.node_name
    if actor is not None:
        found |= {"actor": actor.spec.id, "class": actor.spec.class_name}
    if call is not None:
        found["method"] = call.method
        if call.traceparent:
            found["trace"] = call.traceparent.split("-")[1]
    return found


def log_as_wished() -> bool:
    """Has this process log as JSON, to standard error, where the environment says so; returns whether it does."""
    if os.environ.get(WISH) != "json":
        return False
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    return True
