"""Versions that a peer is told."""

from __future__ import annotations

import sys

__version__ = "0.1.0"
PROTOCOL = 1
"""Version of the session stream; peers with another one are refused by name."""

MINOR = 4
"""What was added to the protocol since its number last changed; each thing is sent only to whoever knows of it.

1: replies that bring the state of their actor, for whoever has charge of it.
2: plain values of calls that came together in one pickle.
3: states that an heir is sent by the actor alone, as bare pickles, and that whoever has charge of it recalls.
4: calls that begin a trace whose ids nobody sends.
"""

PYTHON = "{}.{}".format(*sys.version_info)
"""Minor version of Python: code that travels by value runs in the same one only."""
