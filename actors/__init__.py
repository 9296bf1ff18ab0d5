"""Remote Python objects on every device of a LAN, as easy as local ones."""

from __future__ import annotations

import atexit
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from actors.version import __version__ as __version__

if TYPE_CHECKING:
    from actors import actor as actor
    from actors import collective as collective
    from actors import communicator as communicator
    from actors import elastic as elastic
    from actors import exceptions as exceptions
    from actors import models as models
    from actors import supervision as supervision
    from actors import testing as testing
    from actors import util as util
    from actors.actorclass import ActorClass as ActorClass
    from actors.actorclass import remote as remote
    from actors.api import available_resources as available_resources
    from actors.api import cancel as cancel
    from actors.api import cluster_resources as cluster_resources
    from actors.api import exit_actor as exit_actor
    from actors.api import get as get
    from actors.api import get_actor as get_actor
    from actors.api import get_runtime_context as get_runtime_context
    from actors.api import is_initialized as is_initialized
    from actors.api import kill as kill
    from actors.api import list_named_actors as list_named_actors
    from actors.api import move as move
    from actors.api import nodes as nodes
    from actors.api import put as put
    from actors.api import shutdown as shutdown
    from actors.api import wait as wait
    from actors.attaching import debug as debug
    from actors.cluster import Cluster as Cluster
    from actors.cluster import init as init
    from actors.group import ActorGroup as ActorGroup
    from actors.handle import ActorHandle as ActorHandle
    from actors.marked import Marked as Marked
    from actors.marked import method as method
    from actors.nodeinfo import NodeInfo as NodeInfo
    from actors.perfetto import timeline as timeline
    from actors.refs import ObjectRef as ObjectRef
    from actors.stream import ObjectRefGenerator as ObjectRefGenerator

# `import actors` stays light: what needs gRPC, numpy or a display is loaded when it is first touched.
_HOMES = {
    "available_resources": "api",
    "cancel": "api",
    "cluster_resources": "api",
    "debug": "attaching",
    "exit_actor": "api",
    "get_actor": "api",
    "get_runtime_context": "api",
    "kill": "api",
    "list_named_actors": "api",
    "move": "api",
    "nodes": "api",
    "Cluster": "cluster",
    "init": "cluster",
    "is_initialized": "api",
    "shutdown": "api",
    "timeline": "perfetto",
    "ActorGroup": "group",
    "ActorClass": "actorclass",
    "ActorHandle": "handle",
    "Marked": "marked",
    "method": "marked",
    "remote": "actorclass",
    "NodeInfo": "nodeinfo",
    "ObjectRef": "refs",
    "get": "api",
    "put": "api",
    "wait": "api",
    "ObjectRefGenerator": "stream",
}
_MODULES = ("actor", "collective", "communicator", "elastic", "exceptions", "models", "supervision", "testing", "util")

__all__ = [
    "ActorClass",
    "ActorGroup",
    "ActorHandle",
    "Cluster",
    "Marked",
    "NodeInfo",
    "ObjectRef",
    "ObjectRefGenerator",
    "__version__",
    "actor",
    "available_resources",
    "cancel",
    "cluster_resources",
    "collective",
    "communicator",
    "debug",
    "elastic",
    "exceptions",
    "exit_actor",
    "get",
    "get_actor",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "list_named_actors",
    "method",
    "models",
    "move",
    "nodes",
    "put",
    "remote",
    "shutdown",
    "supervision",
    "testing",
    "timeline",
    "util",
    "wait",
]


def _leave() -> None:
    cluster = sys.modules.get("actors.cluster")
    if cluster is not None:
        cluster.end()


# Registered here and not where the cluster is: that is loaded late, and handlers of the program's own, registered
# after this import, may still use their actors.
atexit.register(_leave)


if "IPython" in sys.modules:  # things have pictures there, and what actors print belongs to a cell
    import_module("actors.notebook").enable()


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f"actors.{_HOMES[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"actors.{name}")
    else:
        raise AttributeError(f"module 'actors' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
