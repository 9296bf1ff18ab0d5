"""What differs on the engine of Ray: tests of the black-box suite that do not hold there, and why.

The page `docs/ray-differs.md` is made of this: ``python tests/ray_differs.py > docs/ray-differs.md``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable


LONG = 15.0
"""Seconds for a test that will not end."""


@dataclass(frozen=True)
class Difference:
    """Why a test does not hold on Ray.

    Attributes:
        why: in words.
        always: whether it never holds; else it is a matter of moments.
        within: seconds after which it is ended, where it would wait for long or for ever.
    """

    why: str
    always: bool = True
    within: float | None = None


_NO_DEADLINE = Difference("`timeout=` of a call is refused: Ray's calls have no deadlines")
_CANCELLED_LATE = Difference("a cancelled call that waits is answered when the actor is free")
_NO_FORCE = Difference("`cancel(force=True)` of an actor's call is refused")
_THREAD_NAMES = Difference("threads of a concurrency group have no names")
_LOOPS = Difference(
    "each concurrency group of an async actor has an event loop of its own, and its calls may begin in another order",
    always=False,
    within=LONG,
)
_OWN_TASK = Difference("`exit_actor()` in an asyncio task of its own ends that task alone")
_ANEW = Difference("a call to an actor that is just being made anew fails at once, and does not wait for it")
_EXIT_CODE = Difference("Ray does not tell the exit code or the signal by which a process has ended")
_RESULT_PART = Difference("which part of a result cannot be pickled is not told; of an argument it is")
_STILLBORN = Difference(
    "an actor whose constructor raised keeps its name and its process until its last handle is gone", within=LONG
)
_VERDICT = Difference("Ray does not tell whether a call that was cut off had begun")
_IN_LATE = replace(_CANCELLED_LATE, within=LONG)
_ONE_BY_ONE = Difference("each value of `map` is a call of its own: those before one that is refused are made")
_CIRCLE = Difference("actors that wait for each other in a circle wait for ever", within=LONG)
_NODE_AT_ONCE = Difference("a node that is not there is told by `.remote()` itself, not by the first call")
_NO_NODE_PID = Difference("Ray does not tell the process of a node: its `pid` is None")
_SPREAD = Difference("Ray spreads a group over the nodes as well as it can, which may leave one out", always=False)
_OWN_BOUND = Difference("no bound on what one caller has under way; `max_pending_calls=` of an actor is there")
_BACKENDS = Difference('`create_group(backend=)` takes `"auto"` alone, and `explain` knows the ways that are there')
_STORE = Difference("the pages of Ray's object store that a process has read count as its own")
_NO_CHECKPOINT = Difference("`checkpoint=` is refused")
_LAST_WORDS = Difference(
    "the error of a death does not show what the actor printed last: Ray prints that at the program"
)
_LAN_INIT = Difference("`init` for a LAN is refused while a Ray cluster is joined, or says other words then")
_NO_TRACE = Difference("`timeline` and what else needs the nodes of a LAN is refused")
_COUNTS = Difference("the test counts what this package's own processes keep")
_CYCLE = Difference("Ray does not end an actor that has a handle of its own", within=LONG)
_WEAK_NAME = Difference("a handle found by name does not keep its actor")
_NO_LIGHT = Difference("`isolation='thread'` is refused")
_SLEEPING_TASK = Difference("a task that sleeps is cancelled by force alone", within=LONG)
_FOUND_STILL = Difference(
    "an actor whose last handle is gone may be found by its name for a moment, and answer", always=False
)
_NO_SUPERVISOR = Difference("supervisors are of a LAN, and refused")
_OLDER_CLASS = Difference("`get_if_exists=True` returns an actor of that name whatever its class", within=LONG)
_RAY_PIP = Difference(
    "requirements are installed by Ray, whose nodes need `virtualenv` for that; what goes wrong is said in its words"
)
_MADE_LATER = Difference("an environment that cannot be made is told by the first call, not by `.remote()`")
_OWN_WORDS = Difference("the test looks into this package's own runtime")
_RETRY_ORDER = Difference(
    "calls that are made once more after a death may come in another order", always=False, within=LONG
)

HOLDS = None
"""In place of a difference: one that holds, of a module in which all others differ."""

DIFFERS: dict[str, dict[str, Difference | None]] = {
    "actors_basic": {
        "test_nodes_are_three_and_an_actor_goes_where_it_is_told": _NO_NODE_PID,
    },
    "actors_methods": {
        "test_each_group_has_its_own_number_of_calls_at_once[Doors]": _THREAD_NAMES,
        "test_each_group_has_its_own_number_of_calls_at_once[AsyncDoors]": _LOOPS,
        "test_a_call_has_what_is_left_of_its_time": _NO_DEADLINE,
        "test_a_cancelled_call_that_waits_is_answered_while_another_blocks_the_actor": _CANCELLED_LATE,
        "test_force_ends_a_plain_method_with_its_process": _NO_FORCE,
        "test_force_makes_an_actor_anew_that_may_be": _NO_FORCE,
        "test_an_async_actor_leaves_from_a_task_of_its_own": _OWN_TASK,
        "test_any_other_status_is_a_crash": _ANEW,
    },
    "actors_errors": {
        "test_a_result_that_cannot_be_pickled_names_the_attribute": _RESULT_PART,
        "test_a_streams_value_that_cannot_be_pickled_names_the_attribute": _RESULT_PART,
        "test_a_stillborn_actor_gives_its_name_and_its_process_back": _STILLBORN,
        "test_a_second_init_returns_the_same_cluster_or_says_what_is_different": _LAN_INIT,
        "test_an_unknown_node_is_told_with_those_there_are": _NODE_AT_ONCE,
        "test_expecting_more_nodes_than_this_machine_starts_is_told_at_once": _LAN_INIT,
        "test_a_trace_goes_to_a_path_alone": _NO_TRACE,
    },
    "actors_faults": {
        "test_an_actor_that_ends_in_a_call_answers_it_and_all_behind_it[SIGTERM": replace(_EXIT_CODE, within=LONG),
        "test_an_actor_that_ends_in_a_call_answers_it_and_all_behind_it": _EXIT_CODE,
        "test_the_error_shows_what_the_actor_printed_last": _LAST_WORDS,
        "test_an_actor_killed_from_outside_while_it_waits": _EXIT_CODE,
        "test_a_stopped_node_is_not_dead": _NO_NODE_PID,
    },
    "groups": {
        "test_each_knows_its_rank_and_the_nodes_share_them": _SPREAD,
    },
    "references": {
        "test_a_value_ends_with_its_last_reference": _COUNTS,
        "test_a_value_lives_while_another_process_refers_to_it": _COUNTS,
        "test_a_value_that_nobody_opens_gives_back_what_it_mentions": _COUNTS,
        "test_a_reference_that_a_method_returns": _COUNTS,
        "test_a_reference_that_comes_home": _COUNTS,
        "test_one_value_many_readers": _COUNTS,
        "test_ten_thousand_references_in_one_list": _COUNTS,
        "test_the_memory_of_values_is_given_back": _STORE,
        "test_a_reference_in_several_values_and_in_a_stream": _COUNTS,
        "test_an_actor_without_a_handle_is_constructed_and_answers": _COUNTS,
        "test_a_holder_that_is_killed_gives_back_what_it_held": _COUNTS,
        "test_an_actor_that_has_a_handle_of_its_own_ends": _CYCLE,
        "test_a_name_alone_keeps_no_actor": _WEAK_NAME,
        "test_get_if_exists_makes_a_new_one_while_the_last_still_ends": _FOUND_STILL,
        "test_a_name_is_found_from_another_process_and_counts_there": _WEAK_NAME,
    },
    "tasks": {
        "test_a_dead_worker_is_an_error_unless_the_task_may_be_tried_again": _EXIT_CODE,
        "test_cancelling_one_that_sleeps": _SLEEPING_TASK,
        "test_a_task_has_a_deadline": _NO_DEADLINE,
        "test_idle_workers_end": _OWN_WORDS,
        "test_another_engine_is_not_joined_beside_the_cluster": _LAN_INIT,
    },
    "map": {
        "test_every_value_has_its_answer[light": _NO_LIGHT,
        "test_on_an_event_loop_nothing_waits": _OWN_BOUND,
        "test_they_go_in_few_messages": _ONE_BY_ONE,
        "test_nothing_is_sent_where_a_value_cannot_be": _ONE_BY_ONE,
        "test_one_in_the_middle_is_cancelled": _IN_LATE,
        "test_the_state_is_saved_after_each_of_calls_that_came_together": _NO_CHECKPOINT,
        "test_a_deadline_is_each_calls_own": _NO_DEADLINE,
        "test_a_death_in_the_middle_has_a_verdict_for_each": _VERDICT,
        "test_an_actor_that_is_made_anew_may_run_again_what_was_cut_off": _VERDICT,
        "test_a_limit_of_the_actors_own_takes_all_or_none": _ONE_BY_ONE,
    },
    "restarts": {
        "test_a_call_that_was_cut_off_is_tried_again_where_that_is_asked_for": _RETRY_ORDER,
        "test_it_comes_back_with_fresh_state_until_it_may_not": _EXIT_CODE,
        "test_a_crash_loop_ends_with_the_last_cause": _EXIT_CODE,
    },
    "cycles": {
        "test_a_circle_is_told_with_its_chain": _CIRCLE,
        "test_a_wait_for_one_is_a_wait_too": _CIRCLE,
        "test_an_async_call_that_waits_for_who_waits_for_it_is_a_circle": _CIRCLE,
    },
    "ray_ways": {
        "test_one_that_is_told_to_end_does_so_in_its_turn[thread]": _NO_LIGHT,
    },
    "ray_names": {},
    "collective_groups": {
        "test_a_group_is_made_of_handles": _BACKENDS,
        "test_who_destroys_its_group_at_once_leaves_the_others_what_it_has_sent[grpc": _BACKENDS,
    },
    "util_queue": {},
    "util_pool": {
        "test_a_function_that_kills_its_process_costs_its_own_result_alone": _EXIT_CODE,
    },
    "util_misc": {},
    "util_completion": {
        "test_a_circle_is_told": _CIRCLE,
    },
    "bounds": {
        "test_without_one_the_caller_is_held_up": replace(_OWN_BOUND, within=LONG),
        "test_bytes_are_bounded_too": replace(_OWN_BOUND, within=LONG),
        "test_an_event_loop_is_never_held_up": _OWN_BOUND,
    },
    "deadlines": {
        "test_a_call_without_one_has_no_end": HOLDS,
        "test_a_deadline_that_cannot_be_meant": HOLDS,
        "test_": _NO_DEADLINE,
    },
    "light_actors": {
        "test_what_they_print_is_shown": HOLDS,
        "test_the_process_ends_when": HOLDS,
        "test_": _NO_LIGHT,
    },
    "saved_state": {
        "test_of_two_states": HOLDS,
        "test_": _NO_CHECKPOINT,
    },
    "moving": {"test_": Difference("`move` is refused")},
    "record": {"test_what_is_no_record_says_so": HOLDS, "test_": Difference("`record=` is refused")},
    "supervision": {"test_what_cannot_be_supervised_is_refused": HOLDS, "test_": _NO_SUPERVISOR},
    "runtime_env": {
        "test_a_working_dir_is_where_the_actor_runs_and_imports_from": Difference(
            "modules of the cluster's own `PYTHONPATH` come before those of the working folder"
        ),
        "test_a_node_gets_a_folder_from_another_node_where_its_packer_has_it_no_more": _OWN_WORDS,
        "test_folders_that_nobody_uses_any_more_are_removed_but_for_a_few": Difference(
            "Ray keeps folders that nobody uses, up to 10 GB", within=LONG
        ),
        "test_packages_are_installed_once_for_those_who_ask": _RAY_PIP,
        "test_what_pip_cannot_install_says_where_and_why": _RAY_PIP,
        "test_an_environment_in_which_no_process_starts_says_what_it_printed": Difference(
            "Ray tries for long to start a process whose environment lets none start", within=LONG
        ),
        "test_the_name_of_an_actor_that_could_not_be_made_is_free": _MADE_LATER,
    },
    "travelling_code": {
        "test_get_if_exists_does_not_return_an_actor_of_an_older_class": _OLDER_CLASS,
        "test_an_actor_may_ask_for_another_by_a_class_it_was_sent": _OLDER_CLASS,
    },
}
"""By module: tests, by the beginning of their names, and the reason; of several, the first counts."""

NOT_RUN = {
    "replicas": "`replicas=` is refused; the module kills nodes of a LAN of its own",
    "public_calls": "calls by gRPC from other languages come to nodes of a LAN; the module starts its own",
    "placement": '`placement_timeout=` and `"PACK"` are refused; the module starts a LAN of its own, with resources',
    "elastic": "the module kills nodes of a LAN of its own",
    "actors_cleanup": "the module looks for what programs of a LAN leave behind",
    "tracing": _NO_TRACE.why + "; the module starts LANs of its own",
}
"""Modules of the black-box suite that are not run on Ray, and why."""


def mark(items: Iterable[pytest.Item]) -> None:
    """Marks what differs: it must fail, so that what is no difference any more does not stay in the list.

    What does not meet the cluster is skipped: it is the same with any engine.
    """
    for item in items:
        module = item.path.stem.removeprefix("test_")
        if module in DIFFERS and "cluster" not in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip(reason="meets no cluster"))
        elif (found := why(module, item.name)) is not None:
            item.add_marker(pytest.mark.xfail(reason=f"differs on Ray: {found.why}", strict=found.always))
            item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"))
            if found.within is not None:
                item.add_marker(pytest.mark.timeout(found.within))


def why(module: str, test: str) -> Difference | None:
    """Returns why a test does not hold on Ray; None where it does."""
    for beginning, reason in DIFFERS.get(module, {}).items():
        if test.startswith(beginning):
            return reason
    return None


def _words(test: str, tests: dict[str, Difference | None]) -> str:
    if test != "test_":
        return test.removeprefix("test_").replace("_", " ")
    held = [_words(other, tests) for other, found in tests.items() if found is None]
    return "all" + (f", but {'; '.join(held)}" if held else "")


def page() -> str:
    """Returns the page of what differs."""
    rows = [
        f"| `test_{module}.py` | {_words(test, tests)} | {found.why} |"
        for module, tests in DIFFERS.items()
        for test, found in tests.items()
        if found is not None
    ]
    whole = [f"`test_{module}.py`" for module, tests in DIFFERS.items() if not tests]
    left = [f"| `test_{module}.py` | {reason} |" for module, reason in NOT_RUN.items()]
    return "\n".join([
        "# What differs on Ray", "",
        "Made of `tests/ray_differs.py`. `make test-ray` runs the black-box tests of actors on a Ray cluster of three",
        "nodes: what is listed here must fail there, and nothing else may.", "",
        "| tests | what does not hold | why |", "|---|---|---|", *rows, "",
        f"All of these holds: {', '.join(whole)}.", "",
        "## What is not run there", "",
        "| tests | why |", "|---|---|", *left, "",
    ])  # fmt: skip


if __name__ == "__main__":
    os.write(1, page().encode())
