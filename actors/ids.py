"""Ids of processes, actors, sessions and groups: random, so that nobody has to hand them out."""

from __future__ import annotations

import secrets


def new_id(kind: str) -> str:
    """Returns a fresh id such as ``actor-3f9c0a12b7de``; 48 random bits after the kind's name."""
    return f"{kind}-{secrets.token_hex(6)}"
