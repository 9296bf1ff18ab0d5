"""Who belongs to a cluster: a set of signed statements, and what follows from it."""

from __future__ import annotations

from actors.trust.roll import Member as Member
from actors.trust.roll import Roll as Roll
from actors.trust.statement import Statement as Statement
from actors.trust.store import TrustStore as TrustStore
