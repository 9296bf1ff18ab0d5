"""What differs on the engine of Ray: tests of the black-box suite that do not hold there, and why.

The page `docs/ray-engine.md` says the same in words.
"""

from __future__ import annotations

_ONE_NODE = "the cluster that the tests start has one node"
_SILENT_REF = "a reference of Ray's does not know of which call it is, nor whether its value is there"
_AHEAD = "Ray's producers do not wait for their readers"
_GOES_ON = "the producer of a stream that is dropped goes on; close() ends it"

DIFFERS: dict[str, dict[str, str]] = {
    "actors_basic": {
        "test_handles_across_nodes": _ONE_NODE,
        "test_nodes_are_three_and_an_actor_goes_where_it_is_told": _ONE_NODE,
        "test_a_large_array_from_actor_to_actor": _ONE_NODE,
        "test_get_gives_up_in_time_and_the_call_goes_on": _SILENT_REF,
        "test_a_reference_says_what_it_is": _SILENT_REF,
        "test_a_producer_waits_for_its_reader": _AHEAD,
        "test_closing_or_dropping_a_stream_stops_the_producer[drop": _GOES_ON,
    },
}
"""By module: tests, by the beginning of their names, and the reason."""


def why(module: str, test: str) -> str | None:
    """Returns why a test does not hold on Ray; None where it does."""
    for beginning, reason in DIFFERS.get(module, {}).items():
        if test.startswith(beginning):
            return reason
    return None
