"""Errors that few people meet, each provoked: what they say and whose they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from clusters import succeed

from actors.exceptions import ActorsError
from actors.pairing.bundle import Bundle
from actors.trust.store import TrustStore

if TYPE_CHECKING:
    from pathlib import Path


SAID = ("none", "group", "find", "loop")


def test_a_folder_in_a_files_place_is_told_of_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(ActorsError, match=rf"cannot read {tmp_path}: Is a directory"):
        Bundle.read(tmp_path)
    with pytest.raises(ActorsError, match=rf"cannot read {tmp_path / 'trust'}"):
        store = TrustStore(tmp_path)
        store._path = tmp_path / "trust"
        store._path.mkdir()
        store.read()


def test_a_cluster_says_what_it_cannot_do_and_with_whom() -> None:
    said = succeed("""
        import queue
        import actors
        from actors import runtime
        from actors.observer import Observer, find

        try:
            actors.nodes()
        except actors.exceptions.NoClusterError as error:
            print("none", error)
        actors.init("local")

        @actors.remote
        class Twin:
            def two(self):
                return 2

        light = [Twin.options(isolation="thread").remote() for _ in range(2)]
        try:
            actors.collective.create_group(light)
        except actors.exceptions.CollectiveError as error:
            print("group", error)

        twins = [Twin.remote() for _ in range(2)]
        actors.get([twin.two.remote() for twin in twins])
        observer = Observer.here()
        try:
            find("Twin", [(observer, observer.view())])
        except LookupError as error:
            print("find", error)

        caught = queue.Queue()
        ref = twins[0].two.remote()

        def look():
            try:
                caught.put(actors.get(ref))
            except RuntimeError as error:
                caught.put(error)

        runtime.joined().portal.soon(look)
        print("loop", caught.get(timeout=30))
    """)
    found = dict(line.split(" ", 1) for line in said if line.startswith(SAID))
    assert found["none"].startswith("this program is in no cluster: call actors.init() first")
    assert " shares its process with other actors: make it without isolation='thread'" in found["group"]
    assert "'Twin' means " in found["find"]
    assert " actors: actor-" in found["find"]
    assert found["loop"] == "actors.get would block the I/O loop for ever; await the reference instead"
