"""Pairing by a code: its form, the exchange as a state machine, and what an attacker gets from the port: nothing."""

from __future__ import annotations

import asyncio
import time

import pytest

from actors.certificate import node_id_of
from actors.exceptions import ActorsError, AuthenticationError
from actors.identity import Identity
from actors.pairing.code import ALPHABET, Code
from actors.pairing.exchange import Inviter, Joiner, PairingError, WrongCodeError, bytes_in, to_text
from actors.pairing.invitation import MOST_PEERS, TRIES, Invitation, Tally, readable
from actors.pairing.joining import join_at
from actors.pairing.wire import receive, send
from actors.trust.roll import found

ALICE, BOB = Identity.create(), Identity.create()
RIGHT, WRONG = Code("42", "7K2MXQ9D"), Code("42", "7K2MXQ9E")


def test_a_code_is_read_as_people_write_it():
    code = Code.new()
    assert Code.parse(str(code)) == code
    assert Code.parse("42 7k2m-xq9d") == RIGHT
    assert Code.parse("42-OIL0-0000") == Code("42", "01100000")
    assert "7K2M" not in repr(RIGHT)
    assert set(code.secret) <= set(ALPHABET)


@pytest.mark.parametrize("text", ["", "42", "42-7K2M-XQ9", "42-7K2M-XQ9DD", "4A-7K2M-XQ9D", "42-7K2M-XQ9U", "x" * 9999])
def test_what_is_no_code_is_refused(text):
    with pytest.raises(ActorsError, match="that is not a code"):
        Code.parse(text)


def test_both_sides_learn_who_the_other_is():
    joiner, inviter = Joiner(RIGHT), Inviter(RIGHT)
    proof = inviter.prove(joiner.prove(inviter.answer(joiner.hello())), ALICE, cluster="c")
    certificate, card = joiner.meet(proof)
    assert (node_id_of(certificate), card["cluster"]) == (ALICE.node_id, "c")
    shown, _ = inviter.keys.read_card("joiner", joiner.keys.card(BOB, "joiner", name="bob"))
    assert node_id_of(shown) == BOB.node_id


def test_a_wrong_code_shows_nothing():
    joiner, inviter = Joiner(WRONG), Inviter(RIGHT)
    with pytest.raises(WrongCodeError):
        inviter.prove(joiner.prove(inviter.answer(joiner.hello())), ALICE)


def test_an_inviter_without_the_code_is_refused():
    joiner, inviter = Joiner(RIGHT), Inviter(WRONG)
    joiner.prove(inviter.answer(joiner.hello()))
    card = inviter.keys.card(ALICE, "inviter")
    with pytest.raises(WrongCodeError):
        joiner.meet({"confirm": to_text(inviter.keys.confirmation("inviter")), "sealed": to_text(card)})


def test_messages_of_another_exchange_are_worth_nothing():
    first = Joiner(RIGHT)
    inviter = Inviter(RIGHT)
    proof = first.prove(inviter.answer(first.hello()))
    again = Inviter(RIGHT)
    again.answer(first.hello())
    with pytest.raises(WrongCodeError):
        again.prove(proof, ALICE)


def test_the_certificate_of_another_is_refused():
    joiner, inviter = Joiner(RIGHT), Inviter(RIGHT)
    inviter.prove(joiner.prove(inviter.answer(joiner.hello())), ALICE)
    liar = Identity(ALICE.node_id, ALICE.certificate, BOB.private_key)
    with pytest.raises(AuthenticationError, match="not its own"):
        inviter.keys.read_card("joiner", joiner.keys.card(liar, "joiner"))


@pytest.mark.parametrize("pake", ["", "QQ==", "?", to_text(b"A" + bytes(32)), to_text(b"A" + b"\xff" * 32), None, 3])
def test_bad_points_end_in_one_kind_of_error(pake):
    with pytest.raises(PairingError):
        Inviter(RIGHT).answer({"version": 1, "pake": pake})


def test_the_tally_counts_answers_not_proofs():
    tally = Tally(uses=1, expires=10.0)
    assert [tally.spend(0.0) for _ in range(TRIES + 1)] == [True] * TRIES + [False]
    assert tally.over(0.0) == "spent"
    tally.proved()
    tally.used()
    assert tally.over(0.0) == "used"
    assert Tally(1, 10.0).over(10.0) == "expired"


def test_a_name_is_made_fit_to_be_shown():
    assert readable("a\x1b[31mb\n") == "a[31mb"
    assert readable("\x00") == "device"
    assert readable("attic/lamp") == "attic-lamp"
    assert len(readable("ä" * 500).encode()) <= 128


# -- over the wire -----------------------------------------------------------------------------------------------


class Waiting:
    """An invitation on 127.0.0.1."""

    def __init__(self, uses=1, seconds=30.0):
        self.roll = found(ALICE, "alice")
        self.names = []

        async def admit(certificate, name):
            self.roll = self.roll.added(ALICE, certificate, name)
            return self.roll

        async def hints():
            return {"doors": {ALICE.node_id: ["127.0.0.1:1"]}, "running": False}

        tally = Tally(uses, time.monotonic() + seconds)
        self.it = Invitation(
            RIGHT, ALICE, self.roll.cluster, admit, tally, hints, lambda member: self.names.append(member.name)
        )

    async def __aenter__(self):
        self.port = await self.it.open("127.0.0.1")
        self.over = asyncio.create_task(self.it.wait())
        return self

    async def __aexit__(self, *_):
        self.over.cancel()
        await asyncio.gather(self.over, return_exceptions=True)
        await self.it.close()

    async def join(self, code=RIGHT, identity=BOB, name="bob", mine=None):
        kept = []
        welcome = await join_at("127.0.0.1", self.port, code, identity, name, mine, kept.append)
        assert kept == [welcome.roll]
        return welcome


def run(work):
    async def bounded():
        async with asyncio.timeout(30):
            await work()

    asyncio.run(bounded())


def test_the_right_code_joins():
    async def work():
        async with Waiting() as waiting:
            welcome = await waiting.join()
            assert welcome.roll.members.keys() == {ALICE.node_id, BOB.node_id}
            assert await waiting.over == "used"
            assert (welcome.inviter, waiting.names) == (ALICE.node_id, ["bob"])
            with pytest.raises(OSError):
                await waiting.join(identity=Identity.create())

    run(work)


def test_a_device_that_joins_twice_takes_no_others_place():
    async def work():
        async with Waiting(uses=2) as waiting:
            await waiting.join()
            await waiting.join()
            assert not waiting.over.done()
            await waiting.join(identity=Identity.create(), name="carl")
            assert await waiting.over == "used"
            assert waiting.names == ["bob", "bob", "carl"]

    run(work)


def test_three_wrong_codes_void_it_and_the_right_one_comes_too_late():
    async def work():
        async with Waiting() as waiting:
            for _ in range(TRIES):
                with pytest.raises(WrongCodeError):
                    await waiting.join(WRONG)
            assert await waiting.over == "spent"
            with pytest.raises((OSError, PairingError)):
                await waiting.join()
            assert waiting.names == []

    run(work)


def test_those_who_say_nothing_or_half_keep_nobody_out():
    async def work():
        async with Waiting() as waiting:
            idle = [await asyncio.open_connection("127.0.0.1", waiting.port) for _ in range(2 * MOST_PEERS)]
            reader, half = await asyncio.open_connection("127.0.0.1", waiting.port)
            await send(half, Joiner(WRONG).hello())
            await receive(reader)
            await waiting.join()
            for _, writer in [*idle, (reader, half)]:
                writer.close()

    run(work)


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x00\x02[]", b"\x00\x00\x00\x00", b"\xff" * 100, b"\x16\x03\x01" * 50]
)
def test_raw_bytes_are_hung_up_on(data):
    async def work():
        async with Waiting() as waiting:
            reader, writer = await asyncio.open_connection("127.0.0.1", waiting.port)
            writer.write(data)
            writer.write_eof()
            while await reader.read(4096):
                pass
            writer.close()
            await waiting.join()

    run(work)


def test_what_was_recorded_cannot_be_played_again():
    async def work():
        async with Waiting(uses=2) as waiting:
            reader, writer = await asyncio.open_connection("127.0.0.1", waiting.port)
            joiner = Joiner(RIGHT)
            hello = joiner.hello()
            await send(writer, hello)
            proof = joiner.prove(await receive(reader))
            writer.close()  # the recorded start of an honest exchange
            reader, writer = await asyncio.open_connection("127.0.0.1", waiting.port)
            await send(writer, hello)
            await receive(reader)
            await send(writer, proof)
            assert await receive(reader) == {"error": "wrong code"}
            writer.close()

    run(work)


def test_a_device_of_another_cluster_is_refused():
    async def work():
        async with Waiting() as waiting:
            with pytest.raises(AuthenticationError, match="actors leave"):
                await waiting.join(mine="f" * 64)
            assert BOB.node_id not in waiting.roll.members
            assert waiting.it.tally.tries == TRIES

    run(work)


def test_it_ends_by_itself():
    async def work():
        async with Waiting(seconds=0.1) as waiting:
            assert await waiting.over == "expired"

    run(work)


def test_a_half_sealed_message_is_refused():
    joiner, inviter = Joiner(RIGHT), Inviter(RIGHT)
    proof = inviter.prove(joiner.prove(inviter.answer(joiner.hello())), ALICE)
    sealed = bytearray(bytes_in(proof, "sealed"))
    sealed[3] ^= 1
    with pytest.raises(PairingError, match="cannot be opened"):
        joiner.meet({**proof, "sealed": to_text(bytes(sealed))})
