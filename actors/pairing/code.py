"""The code of an invitation: ``NN-XXXX-XXXX``, short enough to be read aloud. Pure."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field

from actors.exceptions import ActorsError

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base32: no letter that is taken for a digit or for another letter, and no U."""

_FORM = re.compile(rf"([0-9]{{2}})([{ALPHABET}]{{8}})")
_HEARD = str.maketrans("OIL", "011")


class CodeError(ActorsError, ValueError):
    """A text is no code of an invitation."""


@dataclass(frozen=True, slots=True)
class Code:
    """A code.

    Attributes:
        nameplate: two digits that everybody may know: by them the joiner finds the right inviter.
        secret: eight characters, 40 bits, independent of the nameplate.
    """

    nameplate: str
    secret: str = field(repr=False)

    @classmethod
    def new(cls) -> Code:
        """A fresh one."""
        return cls(f"{secrets.randbelow(100):02}", "".join(secrets.choice(ALPHABET) for _ in range(8)))

    @classmethod
    def parse(cls, text: str) -> Code:
        """Read what a person typed: in any case, with or without hyphens and spaces, O for 0, I or L for 1.

        Raises:
            CodeError: it is no code.
        """
        bare = re.sub(r"[\s-]", "", text).upper().translate(_HEARD)
        match = _FORM.fullmatch(bare)
        if match is None:
            raise CodeError(
                "that is not a code: one looks like 42-7K2M-XQ9D, as `actors invite` shows it on the other device"
            )
        return cls(match[1], match[2])

    def __str__(self) -> str:
        return f"{self.nameplate}-{self.secret[:4]}-{self.secret[4:]}"
