"""Fifteen complaints of other tools' notebook users, and the tests that hold them off here."""

from __future__ import annotations

import ast
import json
import shutil
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from clusters import eventually
from devices import Device

from actors import device
from discovery.interfaces import own

HERE = "test_complaints"

COMPLAINTS: dict[str, tuple[str, ...]] = {
    "the logs of workers flood the notebook (ray#16431)": (
        "test_notebook_pictures.test_a_flood_is_bounded_and_says_what_was_left_out",
        "test_logs.test_the_first_is_shown_at_once_and_the_others_are_counted",
    ),
    "logs are lost, or come in a later cell (ray#34831, ray#45262)": (
        "test_notebook_pictures.test_what_is_printed_after_the_end_of_its_cell_is_shown_there_too",
        "test_logs.test_no_line_is_lost",
    ),
    "another driver's output is in mine (ray#4029)": (f"{HERE}.test_what_another_program_prints_is_not_in_mine",),
    "what workers print is not seen (dask#5577)": (
        "test_notebook.test_what_an_actor_prints_is_shown_in_the_cell_that_runs",
        "test_actors_cleanup.test_what_actors_print_is_shown_with_who_said_it",
    ),
    "what a thread prints is in the wrong cell (ipykernel#1289)": (
        "test_notebook_pictures.test_what_is_printed_while_another_cell_runs_is_shown_in_the_cell_that_caused_it",
        "test_notebook_pictures.test_what_is_printed_is_shown_in_the_cell_that_caused_it",
    ),
    "an interrupt is ignored (ray#6923)": (
        "test_notebook.test_an_interrupt_ends_a_wait_at_once_and_the_next_cell_works",
    ),
    "an interrupt leaves the work running and says nothing (ray#23443)": (
        "test_notebook_pictures.test_an_interrupt_says_what_goes_on",
    ),
    "an address to join at is 127.0.0.1 (ray#24130)": (f"{HERE}.test_an_address_to_join_at_is_one_that_others_reach",),
    "devices flap, ids are copied with a migrated disk (exo#1599)": (
        f"{HERE}.test_a_copy_of_a_device_is_told_of",
        "test_discovery.test_found_changed_lost",
        "test_discovery_netlab.test_killed_and_restarted_is_a_change",
        "test_lan_netlab.test_a_device_that_comes_back_with_another_address",
    ),
    "another version is met without a word (ray#44063, distributed#1678)": (
        "test_travelling_code.test_another_version_is_told_with_both",
        "test_travelling_code.test_fingerprints_of_two_pythons_are_not_compared",
    ),
    "workers have stale code, or none (distributed#4245, ray#28000)": (
        "test_travelling_code.test_a_class_that_was_changed_is_new_for_new_actors",
        "test_travelling_code.test_a_worker_that_lacks_a_package_says_which_and_what_mends_it",
        "test_notebook.test_a_class_defined_again_is_the_new_one_for_new_actors",
    ),
    "a death has no reason (distributed#1829)": (
        "test_actors_faults.test_the_error_shows_what_the_actor_printed_last",
        "test_actors_faults.test_an_actor_that_ends_in_a_call_answers_it_and_all_behind_it",
    ),
    "a widget is an empty VBox() (distributed#3324)": (
        "test_jupyterlab.test_the_picture_lives_as_the_cluster_does",
        "test_notebook_pictures.test_init_shows_the_devices_and_the_picture_goes_on_living",
    ),
    "there is noise at the end (distributed#7192)": (
        "test_notebook.test_nothing_is_complained_of",
        "test_actors_cleanup.test_a_programs_own_exit_status_is_kept",
    ),
    "leftovers fill disks (ray#41202), and Out[] pins values (ipython#11204)": (
        "test_home.test_sweep_leaves_the_living_and_takes_the_killed",
        "test_logs.test_few_files_are_open_and_those_of_ended_workers_are_bounded",
        "test_references.test_the_memory_of_values_is_given_back",
        "test_notebook.test_what_a_cell_ends_with_is_kept_until_it_is_deleted_as_the_page_says",
    ),
}
NOT_HELD_OFF = {
    "Out[] pins values (ipython#11204)": "IPython keeps a reference that a cell ends with: docs/notebook.md says so",
}
"""Parts of these complaints that a user here may make as well."""


def test_each_complaint_has_tests_that_are_there() -> None:
    assert len(COMPLAINTS) == 15
    there = {
        f"{path.stem}.{node.name}"
        for path in Path(__file__).parent.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert [name for names in COMPLAINTS.values() for name in names if name not in there] == []


def test_an_address_to_join_at_is_one_that_others_reach() -> None:
    if all(ip_address(address).is_loopback for _, address in own()):
        pytest.skip("this machine has no address but those of the loopback interface")
    assert not ip_address(device.hosts(device.Door())[0]).is_loopback


@pytest.mark.slow
def test_a_copy_of_a_device_is_told_of(tmp_path: Path) -> None:
    desk, lamp = Device(tmp_path / "desk"), Device(tmp_path / "lamp")
    shutil.copytree(desk.home, tmp_path / "none")
    desk.admit(lamp)
    copied = Device(tmp_path / "copied")
    shutil.copytree(desk.home / "device", copied.home / "device", ignore=shutil.ignore_patterns("node.*"))
    devices = (desk, lamp, copied)
    try:
        for each in devices:
            each.start()
        assert_eventually_told(desk, copied)
        assert not [one for one in examined(lamp) if one["check"] == "key"]
    finally:
        for each in devices:
            each.run("stop")


def examined(one: Device) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(one.run("doctor", "--json").stdout)
    return found


def assert_eventually_told(*devices: Device) -> None:
    """Each says that the other is there, by `actors doctor` and in its log."""
    for one in devices:
        eventually(lambda one=one: any(check["check"] == "key" and not check["ok"] for check in examined(one)), 60)
        (said,) = [check for check in examined(one) if check["check"] == "key"]
        assert "has this one's key" in said["what"]
        assert "actors leave" in said["do"]


@pytest.mark.slow
def test_what_another_program_prints_is_not_in_mine(tmp_path: Path) -> None:
    program = """
import actors, sys

actors.init()

@actors.remote
class Says:
    def say(self, who, turn):
        print("this is", who, turn, flush=True)

one = Says.remote()
for turn in range(4):
    print("ready", flush=True)
    sys.stdin.readline()
    actors.get(one.say.remote(WHO, turn))
print("ready", flush=True)
sys.stdin.readline()
"""
    desk = Device(tmp_path / "desk")
    desk.does("invite", "--bundle", str(tmp_path / "bundle"), "--name", "lamp")  # else each has a node of its own
    desk.start()
    try:
        programs = [desk.program(program.replace("WHO", repr(who))) for who in ("first", "second")]
        shown = [until(each, "", 1) for each in programs]
        for turn in range(4):  # by turns, so that each is there, and is known, while the other's actor prints
            for number, (each, mine) in enumerate(zip(programs, ("first", "second"), strict=True)):
                each.stdin.write("\n")
                each.stdin.flush()
                shown[number] = until(each, shown[number], turn + 2, f"this is {mine} {turn}")
        said = [each.communicate("\n", timeout=60) for each in programs]
    finally:
        desk.does("stop")
    for (out, err), before, other in zip(said, shown, ("second", "first"), strict=True):
        assert f"this is {other}" not in before + out + err


def until(program: Any, shown: str, times: int, words: str = "") -> str:
    """What a program has printed once it has been ready so often, and has printed the words."""
    while shown.count("ready") < times or words not in shown:  # an actor's line may come before the end of that line
        line = program.stdout.readline()
        assert line, program.communicate(timeout=60)
        shown += line
    return shown
