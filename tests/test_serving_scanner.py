"""An answer is taken apart in the same way, however it is cut as it arrives."""

from __future__ import annotations

import pytest

pytest.importorskip("pydantic")

from hypothesis import given
from hypothesis import strategies as st

from actors.models.serving.scanner import Mark, Scanner

CALL, THOUGHT = Mark("call", "<call>", "</call>"), Mark("thought", "<think>", "</think>")
TO_THE_END = Mark("call", "[CALLS]", "")
PIECES = st.sampled_from(["<call>", "</call>", "<think>", "</think>", "<", "call", "</", ">", "a", " b", "\n", "<thi"])


def scanned(pieces, *, marks=(CALL, THOUGHT), inside=None):
    """What is found: text and thoughts joined, each call by itself."""
    scanner = Scanner(marks, inside)
    segments = [segment for piece in pieces for segment in scanner.feed(piece)] + scanner.finish()
    joined = {kind: "".join(each.text for each in segments if each.kind == kind) for kind in ("text", "thought")}
    return joined["text"], joined["thought"], [each.text for each in segments if each.kind == "call"]


@given(st.lists(PIECES), st.booleans())
def test_it_does_not_matter_how_an_answer_is_cut(pieces, thinking):
    inside = THOUGHT if thinking else None
    whole = "".join(pieces)
    assert scanned(pieces, inside=inside) == scanned([whole], inside=inside) == scanned(whole, inside=inside)


@given(st.text(alphabet="abc<>/ \n"))
def test_text_without_marks_is_left_as_it_is(text):
    assert scanned(text) == (text, "", [])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("so <call>f</call>\n<call>g</call>\n", ("so ", "", ["f", "g"])),
        ("<think>hm</think>\n\nyes", ("yes", "hm", [])),
        ("cut <call>off", ("cut <call>off", "", [])),
        ("<think>for ever", ("", "for ever", [])),
        ("a < b", ("a < b", "", [])),
    ],
)
def test_parts_are_found(text, found):
    assert scanned(text) == found


def test_a_mark_without_an_end_lasts_to_the_end():
    assert scanned("ok [CALLS][{}]", marks=(TO_THE_END,)) == ("ok ", "", ["[{}]"])
