from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from zeroconf import IPVersion
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

import discovery
from discovery import Changed, DiscoveryError, Found, Lost, NodeRecord
from discovery.addresses import CANDIDATES, candidates, host_and_port
from discovery.roster import Roster
from discovery.txt import NAME_LIMIT, TXT_LIMIT, from_txt, to_txt

FOUND_S = 1.0
"""Within which a node is found on one machine."""

IDS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
ASCII = st.characters(min_codepoint=33, max_codepoint=126)
NAMES = st.text(min_size=1, max_size=64).filter(lambda name: name.isprintable() and len(name.encode()) <= NAME_LIMIT)
IPS = st.ip_addresses().map(str)
RECORDS = st.builds(
    NodeRecord,
    id=IDS,
    name=NAMES,
    port=st.integers(1, 65535),
    addresses=st.lists(IPS, max_size=5).map(tuple),
    boot=st.text(ASCII, max_size=32),
    cluster=st.text(ASCII, max_size=64),
    protocol=st.integers(0, 65535),
)


def unique(name: str = "node", **fields: object) -> NodeRecord:
    """A record of a node, and a cluster, that no other test run on this machine has."""
    tag = f"{os.getpid()}-{time.monotonic_ns()}"
    record = NodeRecord(id=f"{name}-{tag}", name=name, port=50099, boot="first", cluster=tag)
    return dataclasses.replace(record, **fields)  # type: ignore[arg-type]


class TestTxt:
    @given(RECORDS)
    def test_round_trip(self, record: NodeRecord) -> None:
        txt = to_txt(record)
        assert len(txt) < TXT_LIMIT
        assert from_txt(record.id, txt, record.port, record.addresses) == record

    def test_longest_record_fits(self) -> None:
        record = NodeRecord("i" * 63, "é" * 64, 65535, ("10.0.0.1",) * 32, "b" * 32, "c" * 64, 65535)
        assert len(to_txt(record, 10**9)) < TXT_LIMIT

    @given(RECORDS, st.integers(0, 10**9))
    def test_a_revision_changes_the_bytes_only(self, record: NodeRecord, revision: int) -> None:
        txt = to_txt(record, revision)
        assert from_txt(record.id, txt, record.port, record.addresses) == record
        assert to_txt(record, revision + 1) != txt

    @given(st.text(max_size=80), st.binary(max_size=500), st.integers(-5, 70000), st.lists(st.text(), max_size=3))
    @example("id", b"\x05v=\xff\xfe1", 1, [])
    @example("id", b"\xffv=1", 1, [])
    @example("id", b"\x03v=1" * 200, 1, [])
    def test_anything_else_is_a_value_error(self, name: str, txt: bytes, port: int, addresses: list[str]) -> None:
        with pytest.raises(ValueError, match=r"\S+ \S+") as caught:
            from_txt(name, txt, port, addresses)
        assert type(caught.value) is ValueError

    @given(RECORDS, st.data())
    def test_truncated_or_flipped(self, record: NodeRecord, data: st.DataObject) -> None:
        txt = bytearray(to_txt(record))
        position = data.draw(st.integers(0, len(txt) - 1))
        txt[position] ^= data.draw(st.integers(1, 255))
        for hostile in (bytes(txt), bytes(txt[:position])):
            try:
                read = from_txt(record.id, hostile, record.port, record.addresses)
            except ValueError:
                continue
            assert from_txt(read.id, to_txt(read), read.port, read.addresses) == read

    def test_unknown_keys_are_for_later_releases(self) -> None:
        record = unique()
        assert from_txt(record.id, to_txt(record) + b"\x05new=1\x04flag", record.port, ()) == record

    def test_of_a_repeated_key_the_first_counts(self) -> None:
        record = unique()
        assert from_txt(record.id, to_txt(record) + b"\x06NAME=x", record.port, ()) == record

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"id": "i" * 64}, "node id"),
            ({"id": "Upper"}, "node id"),
            ({"id": "a.b"}, "node id"),
            ({"name": "n" * 129}, "takes 129 bytes; at most 128"),
            ({"name": "é" * 65}, "takes 130 bytes"),
            ({"name": ""}, "empty"),
            ({"name": "a\nb"}, "cannot be shown"),
            ({"name": "\ud800"}, "cannot be shown"),
            ({"port": 0}, "port 0"),
            ({"port": 65536}, "port 65536"),
            ({"addresses": ("example.org",)}, "'example.org' of node 'node' is not an IP address"),
            ({"boot": "b" * 33}, "boot nonce"),
            ({"cluster": "c" * 65}, "cluster tag"),
            ({"cluster": "ü"}, "cluster tag"),
            ({"protocol": -1}, "protocol version -1"),
        ],
    )
    def test_advertise_refuses_what_cannot_be_announced(self, fields: dict[str, object], said: str) -> None:
        with pytest.raises(ValueError, match=said):
            discovery.advertise(dataclasses.replace(unique(), **fields))  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("txt", "said"),
        [
            (b"", "version None"),
            (b"\x03v=2", "version '2'"),
            (b"\x03v=1", "lacks name, boot, cluster, protocol"),
            (b"\x09v=1", "ends 6 bytes before"),
            (b"\x02\xc3\x28", "not UTF-8"),
            (b"\x03v=1\x06name=a\x05boot=\x08cluster=\x0bprotocol=x1", "not a version number"),
            (b"\x00" * 400, "has 400 bytes"),
        ],
    )
    def test_says_what_is_wrong(self, txt: bytes, said: str) -> None:
        with pytest.raises(ValueError, match=said):
            from_txt("id", txt, 1, ())


class TestAddresses:
    @pytest.mark.parametrize(
        ("address", "host", "port"),
        [
            ("10.0.0.1:1", "10.0.0.1", 1),
            ("my-mac.local:50099", "my-mac.local", 50099),
            ("my_mac:50099", "my_mac", 50099),
            ("[::1]:65535", "::1", 65535),
            ("[fe80::1%eth0]:7000", "fe80::1%eth0", 7000),
        ],
    )
    def test_host_and_port(self, address: str, host: str, port: int) -> None:
        assert host_and_port(address) == (host, port)

    @pytest.mark.parametrize(
        "address",
        [
            *(
                "",
                "host",
                "host:",
                ":1",
                "host:0",
                "host:65536",
                "host:-1",
                "host:1e3",
                "host:٣",
                "a b:1",
                "http://h:1",
            ),
            *("::1:50099", "[::1]", "[]:1", "[host]:1", "[10.0.0.1]:1", "300.1.1.1:1", "1.2.3:1", "a..b:1", "-a:1"),
        ],
    )
    def test_bad_address_is_named(self, address: str) -> None:
        with pytest.raises(ValueError, match="address") as caught:
            discovery.fixed([address])
        assert repr(address) in str(caught.value)

    def test_best_first_and_link_local_ones_through_every_interface(self) -> None:
        announced = ["fe80::2%3", "169.254.3.4", "2001:db8::1", "0.0.0.0", "ff02::fb", "192.168.1.9", "192.168.1.9"]
        wanted = ("192.168.1.9", "2001:db8::1", "169.254.3.4", "fe80::2%en0", "fe80::2%en5")
        assert candidates(announced, ["en0", "en5"]) == wanted
        assert candidates(reversed(announced), ["en0", "en5"]) == wanted

    def test_thousands_are_cut(self) -> None:
        assert len(candidates([f"10.0.{i // 250}.{i % 250}" for i in range(5000)], [])) == CANDIDATES


class TestRoster:
    def test_events(self) -> None:
        roster, heard = Roster(cluster="mine"), []
        roster.listen(heard.append)
        a, b = unique("a", cluster="mine"), unique("b", cluster="other")
        restarted = dataclasses.replace(a, boot="second")
        for record in (a, b, a, restarted):
            roster.see(record)
        roster.lose(b.id)
        roster.see(dataclasses.replace(a, cluster="other"))
        roster.lose(a.id)
        roster.close()
        roster.see(a)
        assert heard == [Found(a), Changed(restarted), Lost(a.id), None]

    def test_a_failing_listener_harms_nobody(self, caplog: pytest.LogCaptureFixture) -> None:
        roster, heard = Roster(cluster=None), []
        roster.listen(lambda event: 1 / 0)
        roster.listen(heard.append)
        roster.see(record := unique())
        assert heard == [Found(record)]
        assert [entry.levelno for entry in caplog.records] == [logging.ERROR]


class TestFixed:
    def test_addresses_and_records(self) -> None:
        record = unique()
        events: list[discovery.Event] = []
        with discovery.fixed(["10.0.0.1:5000", record], on_event=events.append) as browser:
            given_by_address = NodeRecord("10.0.0.1:5000", "10.0.0.1", 5000, ("10.0.0.1",))
            assert browser.records() == {given_by_address.id: given_by_address, record.id: record}
            assert events == [Found(given_by_address), Found(record)]
            assert list(browser.events(timeout=0)) == events
            assert len(browser.wait_for(2)) == 2
            with pytest.raises(TimeoutError, match=r"waited 0.01 s for 3 nodes; found 2: 10.0.0.1"):
                browser.wait_for(3, timeout=0.01)

    def test_one_string_holds_several(self) -> None:
        with discovery.fixed("a:1, b:2") as browser:
            assert list(browser.records()) == ["a:1", "b:2"]

    async def _async(self) -> None:
        async with discovery.fixed("a:1,b:2") as browser:
            assert len(await browser.until(lambda records: "b:2" in records)) == 2
            with pytest.raises(TimeoutError, match=r"waited 0.01 s for the wanted nodes; found 2"):
                await browser.until(lambda records: False, timeout=0.01)
            names = []
            async for event in browser:
                assert isinstance(event, Found)
                names.append(event.record.name)
                if len(names) == 2:
                    break
            assert names == ["a", "b"]

    def test_async(self) -> None:
        asyncio.run(self._async())

    def test_only_inside_its_block(self) -> None:
        browser = discovery.fixed("a:1")
        with pytest.raises(DiscoveryError, match="inside `with"):
            browser.events()
        with browser:
            pass
        with pytest.raises(DiscoveryError, match="make a new one"):
            browser.__enter__()
        assert [type(event) for event in browser.events()] == [Found]  # a closed one does not wait


class TestLoopback:
    def test_found_changed_lost(self) -> None:
        record = unique()
        restarted = dataclasses.replace(record, boot="second", port=50100)
        with discovery.browse(interfaces="loopback", cluster=record.cluster) as browser:
            events = browser.events(timeout=10)
            started = time.monotonic()
            with discovery.advertise(record, interfaces="loopback"):
                seen = dataclasses.replace(record, addresses=("127.0.0.1",))
                assert next(events) == Found(seen)
                assert time.monotonic() - started < FOUND_S
                assert browser.records() == {record.id: seen}
                with discovery.advertise(restarted, interfaces=["127.0.0.1"]):
                    assert next(events) == Changed(dataclasses.replace(restarted, addresses=("127.0.0.1",)))
            assert next(events) == Lost(record.id)
            assert browser.records() == {}

    def test_found_by_one_who_comes_within_the_second_after_the_announcement(self) -> None:
        record = unique()
        with discovery.advertise(record, interfaces="loopback"):
            for _ in range(3):  # responders keep silent on port 5353 for a second: the direct question gets through
                started = time.monotonic()
                with discovery.browse(interfaces="loopback", cluster=record.cluster) as browser:
                    browser.wait_for(1)
                assert time.monotonic() - started < FOUND_S

    def test_inside_a_running_loop(self) -> None:
        async def blocked_as_in_a_notebook() -> None:
            record = unique()
            with (
                discovery.advertise(record, interfaces="loopback"),
                discovery.browse(interfaces="loopback", cluster=record.cluster) as browser,
            ):
                assert list(browser.wait_for(1)) == [record.id]

        asyncio.run(blocked_as_in_a_notebook())

    def test_async(self) -> None:
        async def run() -> list[discovery.Event]:
            record = unique()
            events: list[discovery.Event] = []

            async def listen(browser: discovery.Browser) -> None:
                async for event in browser:
                    events.append(event)  # noqa: PERF401 - a comprehension would keep all when it is cancelled

            browser = discovery.browse(interfaces="loopback", cluster=record.cluster)
            async with asyncio.TaskGroup() as group, browser:  # leaving the browser ends the listening
                group.create_task(listen(browser))
                async with discovery.advertise(record, interfaces="loopback"):
                    assert list(await browser.until(1)) == [record.id]
                await browser.until(lambda records: not records)
            return events

        assert [type(event) for event in asyncio.run(run())] == [Found, Lost]

    def test_iterations_end_with_the_browser(self) -> None:
        async def run() -> None:
            browser = discovery.browse(interfaces="loopback")
            async with browser, asyncio.timeout(10):
                waiting = asyncio.create_task(browser.until(lambda records: False, timeout=30))
                await asyncio.sleep(0)
            with pytest.raises(DiscoveryError, match="was closed while waiting"):
                await waiting

        asyncio.run(run())

    def test_cancelled_while_opening_leaves_nothing(self) -> None:
        async def run() -> None:
            opening = asyncio.create_task(discovery.browse(interfaces="loopback").__aenter__())
            await asyncio.sleep(0)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening

        before = threading.active_count()
        asyncio.run(run())
        deadline = time.monotonic() + 10
        while threading.active_count() > before:
            assert time.monotonic() < deadline, threading.enumerate()
            time.sleep(0.01)

    def test_callback(self) -> None:
        record = unique()
        lost = threading.Event()
        events: list[discovery.Event] = []
        threads: set[str] = set()

        def on_event(event: discovery.Event) -> None:
            threads.add(threading.current_thread().name)
            events.append(event)
            if isinstance(event, Lost):
                lost.set()

        with discovery.browse(interfaces="loopback", cluster=record.cluster, on_event=on_event) as browser:
            with discovery.advertise(record, interfaces="loopback"):
                browser.wait_for(1)
            assert lost.wait(10)
        assert [type(event) for event in events] == [Found, Lost]
        assert threads == {"discovery-browse"}

    def test_two_that_announce_themselves_and_look_find_each_other_and_say_goodbye(self) -> None:
        one = unique("one")
        other = unique("other", cluster=one.cluster)
        with discovery.reside(one, interfaces="loopback", cluster=one.cluster) as browser:
            with discovery.reside(other, interfaces="loopback", cluster=one.cluster) as others:
                assert set(browser.wait_for(2)) == set(others.wait_for(2)) == {one.id, other.id}
            browser.wait_for(lambda records: set(records) == {one.id})

    def test_a_callback_cannot_close_its_browser(self) -> None:
        record = unique()
        refused: list[DiscoveryError] = []

        def on_event(event: discovery.Event) -> None:
            try:
                browser.__exit__(None, None, None)
            except DiscoveryError as error:
                refused.append(error)

        with (
            discovery.browse(interfaces="loopback", cluster=record.cluster, on_event=on_event) as browser,
            discovery.advertise(record, interfaces="loopback"),
        ):
            browser.wait_for(1)
        assert "cannot end the discovery" in str(refused[0])

    def test_hostile_announcements_are_passed_over(self) -> None:
        good = unique()

        async def announce_nonsense() -> None:
            service = "_mlx-actors._tcp.local."
            zeroconf = AsyncZeroconf(interfaces=["127.0.0.1"], ip_version=IPVersion.V4Only)
            try:
                for number, txt in enumerate((b"\xff", b"\x03v=1", b"\x04v=\xff\xfe", b"\x00" * 500)):
                    name = f"evil-{number}-{good.cluster}.{service}"
                    info = AsyncServiceInfo(
                        service, name, 1, properties=txt, server="evil.local.", parsed_addresses=["127.0.0.1"]
                    )
                    await zeroconf.async_register_service(info, cooperating_responders=True)
                async with discovery.advertise(good, interfaces="loopback"):
                    await browser.until(lambda records: good.id in records)
            finally:
                await zeroconf.async_close()

        events: list[discovery.Event] = []
        with discovery.browse(interfaces="loopback", on_event=events.append) as browser:
            asyncio.run(announce_nonsense())
        assert not [event for event in events if isinstance(event, Found) and event.record.id.startswith("evil")]

    def test_many_at_once_and_nothing_left(self) -> None:
        def resources() -> tuple[int, int]:
            gc.collect()
            return threading.active_count(), len(os.listdir("/dev/fd"))

        def run() -> None:
            records = [unique(f"node{number}", cluster="many") for number in range(5)]
            ids = {record.id for record in records}
            with ExitStack() as stack:
                browsers = [stack.enter_context(discovery.browse(interfaces="loopback")) for _ in range(3)]
                for record in records:
                    stack.enter_context(discovery.advertise(record, interfaces="loopback"))
                for browser in browsers:
                    browser.wait_for(lambda found: ids <= set(found))

        run()  # what is made once per process, such as imports, is there after this
        before = resources()
        run()
        assert resources() == before


class TestErrors:
    @pytest.mark.parametrize("interfaces", ["127.0.0.1", "all", [], ["eth0"], [""], ["::1"]])
    def test_interfaces_not_understood(self, interfaces: discovery.Interfaces) -> None:
        with pytest.raises(ValueError, match="interfaces"):
            discovery.browse(interfaces=interfaces)
        with pytest.raises(ValueError, match="interfaces"):
            discovery.advertise(unique(), interfaces=interfaces)

    @pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
    def test_an_address_of_another_machine(self, address: str) -> None:
        before = threading.active_count()
        for opening in (
            discovery.browse(interfaces=[address]),
            discovery.advertise(unique(), interfaces=["127.0.0.1", address]),
        ):
            with pytest.raises(DiscoveryError, match=f"{address} is not an address of this machine, which has .*127"):
                opening.__enter__()
        assert threading.active_count() == before

    def test_import_is_light(self) -> None:
        code = "import sys, discovery; sys.exit(any(m in sys.modules for m in ('zeroconf', 'ifaddr', 'actors')))"
        root = Path(discovery.__file__).parents[1]
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=root)
