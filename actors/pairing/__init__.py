"""Two devices come to trust each other by a code that a person carries from one to the other."""

from __future__ import annotations
