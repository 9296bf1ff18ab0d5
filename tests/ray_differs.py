"""What differs on the engine of Ray: tests of the black-box suite that do not hold there, and why.

The page `docs/ray-engine.md` says the same in words.
"""

from __future__ import annotations

DIFFERS: dict[str, dict[str, str]] = {}
"""By module: tests, by the beginning of their names, and the reason."""


def why(module: str, test: str) -> str | None:
    """Returns why a test does not hold on Ray; None where it does."""
    for beginning, reason in DIFFERS.get(module, {}).items():
        if test.startswith(beginning):
            return reason
    return None
