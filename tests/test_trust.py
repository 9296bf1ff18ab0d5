"""Who belongs to a cluster: a pure function of a set of signed statements, whatever the order they come in."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from actors.exceptions import ActorsError, AuthenticationError
from actors.identity import Identity
from actors.trust import Roll, Statement, TrustStore
from actors.trust.roll import found
from actors.trust.statement import signed
from actors.trust.store import parse, to_bytes

PEOPLE = [Identity.create() for _ in range(7)]
A, B, C, D, E, F, G = PEOPLE


def ids(*people):
    return {one.node_id for one in people}


def added(roll, by, *others):
    for other in others:
        roll = roll.added(by, other.certificate, f"device-{PEOPLE.index(other)}")
    return roll


def test_a_founder_lets_others_in_and_they_others():
    roll = added(added(found(A, "a"), A, B), B, C)
    assert roll.members.keys() == ids(A, B, C)


def test_whom_a_removed_device_had_let_in_stays_and_nobody_comes_after():
    before = added(added(found(A, "a"), A, B), B, C)
    roll = before.without(A, B.node_id)
    assert roll.members.keys() == ids(A, C)
    late = [
        signed(B, "add", roll.cluster, D.node_id, certificate=D.certificate, name="d"),
        signed(D, "add", roll.cluster, E.node_id, certificate=E.certificate, name="e"),
        signed(B, "add", roll.cluster, B.node_id, certificate=B.certificate, name="b"),
        signed(D, "rm", roll.cluster, B.node_id, keep=tuple(sorted(before.statements))),
    ]
    assert roll.merged(late).members.keys() == ids(A, C)


def test_a_removed_key_is_out_for_good():
    roll = added(found(A, "a"), A, B).without(A, B.node_id)
    with pytest.raises(AuthenticationError, match="was removed"):
        added(roll, A, B)
    again = signed(A, "add", roll.cluster, B.node_id, certificate=B.certificate, name="b")
    assert roll.merged([again]).members.keys() == ids(A)


def test_the_founder_may_go():
    roll = added(found(A, "a"), A, B, C).without(B, A.node_id)
    assert roll.members.keys() == ids(B, C)
    assert added(roll, C, D).members.keys() == ids(B, C, D)


def test_of_two_that_remove_each_other_both_go():
    roll = added(found(A, "a"), A, B, C)
    assert roll.without(A, B.node_id).merged(roll.without(B, A.node_id).statements.values()).members.keys() == ids(C)


def test_two_devices_of_one_name_are_told_apart():
    roll = found(A, "host").added(A, B.certificate, "host").added(A, C.certificate, "host")
    assert sorted(member.name for member in roll.members.values()) == ["host", "host-2", "host-3"]


@pytest.mark.parametrize("seed", range(40))
def test_every_order_gives_the_same(seed):
    rng = random.Random(seed)
    roll = found(A, "a")
    for _ in range(12):
        author = rng.choice([one for one in PEOPLE if one.node_id in roll.members])
        subject = rng.choice([one for one in PEOPLE if one is not author])
        if subject.node_id in roll.members:
            if len(roll.members) > 2 and rng.random() < 0.5:
                roll = roll.without(author, subject.node_id)
        elif subject.node_id not in roll.removed:
            roll = roll.added(author, subject.certificate, "x")
    said = list(roll.statements.values())
    for _ in range(5):
        rng.shuffle(said)
        cut = rng.randrange(len(said))
        root = [s for s in said if s.kind == "found"]
        one, two = Roll([*root, *said[:cut]]), Roll([*root, *said[cut:]])
        merged = one.merged(roll.statements.values()).merged(two.statements.values())
        assert (merged.digest, merged.members) == (roll.digest, roll.members)


@pytest.mark.parametrize("seed", range(60))
def test_whatever_a_removed_device_signs_it_gains_nobody(seed):
    """B is removed; with the keys of B, D and E it signs what it likes, and whoever it likes is lied to."""
    rng = random.Random(seed)
    honest = added(added(found(A, "a"), A, B, C), B, F).without(A, B.node_id)
    crooks, everybody = [B, D, E], [A, B, C, D, E, F, G]
    lies = []
    for _ in range(rng.randrange(1, 12)):
        author, subject = rng.choice(crooks), rng.choice(everybody)
        if rng.random() < 0.6:
            lies.append(
                signed(author, "add", honest.cluster, subject.node_id, certificate=subject.certificate, name="n")
            )
        else:
            keep = [s.id for s in [*honest.statements.values(), *lies] if rng.random() < 0.5]
            lies.append(signed(author, "rm", honest.cluster, subject.node_id, keep=tuple(sorted(set(keep)))))
    assert honest.merged(lies).members.keys() <= honest.members.keys()


def test_a_statement_in_anothers_name_counts_for_nothing():
    roll = added(found(A, "a"), A, B)
    forged = signed(C, "add", roll.cluster, C.node_id, certificate=C.certificate, name="c")
    assert roll.merged([replace(forged, author=A.node_id)]).members.keys() == ids(A, B)
    assert roll.merged([forged]).digest == roll.digest


def test_another_founding_does_not_mix_in():
    roll = found(A, "a")
    other = found(B, "b")
    assert roll.merged(other.statements.values()).digest == roll.digest
    with pytest.raises(AuthenticationError, match="not of one cluster"):
        Roll([*roll.statements.values(), *other.statements.values()])


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "own"}, {"author": "x"}, {"subject": C.node_id}, {"certificate": "-----"}, {"name": "a\nb"},
        {"name": "x" * 200}, {"keep": ["x"]}, {"keep": 3}, {"signature": "?"}, {"more": 1}, {"cluster": 7},
    ],
)  # fmt: skip
def test_what_is_not_of_the_form_is_refused(change):
    said = next(s for s in added(found(A, "a"), A, B).statements.values() if s.kind == "add")
    with pytest.raises(AuthenticationError):
        Statement.from_plain({**said.to_plain(), **change})


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"[1]", b"[" * 100_000, b"\xff"])
def test_bytes_that_are_no_roll_are_refused(content):
    with pytest.raises(AuthenticationError):
        parse(content)


def test_it_is_kept_for_this_user_alone(tmp_path):
    tmp_path.chmod(0o700)
    store = TrustStore(tmp_path)
    assert store.read() is None
    before = store.stamp()
    roll = store.change(lambda _: added(found(A, "a"), A, B))
    assert (tmp_path / "trust.json").stat().st_mode & 0o777 == 0o600
    assert store.read().digest == roll.digest == parse(to_bytes(roll)).digest
    assert store.stamp() != before
    assert {path.stem for path in (tmp_path / "trust").glob("*.pem")} == ids(A, B)
    store.forget()
    assert store.read() is None
    assert not list((tmp_path / "trust").glob("*.pem"))


def test_a_damaged_file_is_named(tmp_path):
    tmp_path.chmod(0o700)
    store = TrustStore(tmp_path)
    store.change(lambda _: found(A, "a"))
    (tmp_path / "trust.json").write_text(json.dumps([{"kind": "found"}]))
    with pytest.raises(ActorsError, match=r"trust\.json is damaged"):
        store.read()
