"""Numbers as protobuf writes them: seven bits a byte, the lowest first."""

from __future__ import annotations

SHORT = [bytes((n,)) for n in range(0x80)]
"""The numbers of one byte."""
_LONGEST = 8 * 7  # bits before the last byte, so 63 in all; longer ones are for protobuf to judge


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Returns the number that begins at ``at``, and where it ends."""
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    number, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = data[at]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at + 1
        shift += 7
        if shift > _LONGEST:
            raise IndexError


def varint(number: int) -> bytes:
    """Returns the bytes of a number."""
    if number < 0x80:
        return SHORT[number]
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    if number < 0x20_0000:  # two million calls: few sessions see more
        return bytes((number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14))
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
