"""The event stream: what happens in a cluster, as frozen values from which all that a person sees is made."""

from __future__ import annotations

from actors.events.event import ActorChanged as ActorChanged
from actors.events.event import CallEnded as CallEnded
from actors.events.event import CollectivesEnded as CollectivesEnded
from actors.events.event import Event as Event
from actors.events.event import GroupChanged as GroupChanged
from actors.events.event import LogPrinted as LogPrinted
from actors.events.event import ModelChanged as ModelChanged
from actors.events.event import NodeChanged as NodeChanged
from actors.events.event import TokensMade as TokensMade
from actors.events.state import State as State
from actors.events.view import ClusterView as ClusterView
from actors.events.view import NodeView as NodeView
from actors.events.view import OpenCallView as OpenCallView
