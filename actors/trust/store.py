"""The statements of this device's cluster, on disk: whole or not at all, for this user alone."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

from actors.exceptions import ActorsError, AuthenticationError
from actors.home import locked, private_folder, write_private
from actors.identity import TrustSet
from actors.trust.roll import MOST_STATEMENTS, Roll
from actors.trust.statement import Statement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FILE = "trust.json"
CERTIFICATES = "trust"
LARGEST_BYTES = MOST_STATEMENTS * 4096


class TrustStore:
    """Reads and writes the roll of a device.

    Beside the statements it keeps the members' certificates as files, which is what other processes of the device
    read at each dial.

    Args:
        folder: the device's state.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE

    def stamp(self) -> tuple[int, int, int] | None:
        """Changes whenever the roll on disk does; None while there is none."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def read(self) -> Roll | None:
        """The roll, or None where this device belongs to no cluster.

        Raises:
            ActorsError: the file cannot be used.
        """
        try:
            if self._path.stat().st_mode & 0o022:
                raise ActorsError(f"others can write to {self._path}; run: chmod 600 '{self._path}'")
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ActorsError(f"cannot read {self._path}: {error.strerror}") from error
        try:
            return parse(content)
        except AuthenticationError as error:
            raise ActorsError(f"{self._path} is damaged ({error}); run `actors leave` and pair again") from error

    def change(self, how: Callable[[Roll | None], Roll | None]) -> Roll | None:
        """Replaces the roll by what ``how`` makes of it, against all other processes; returns the new one."""
        with self._locked():
            roll = self.read()
            changed = how(roll)
            if changed is None:
                self._path.unlink(missing_ok=True)
            elif roll is None or changed.statements != roll.statements:
                write_private(self._path, to_bytes(changed))
            self._write_certificates(changed)
            return changed

    def forget(self) -> None:
        """Belongs to no cluster any more."""
        with self._locked():
            self._path.unlink(missing_ok=True)
            self._write_certificates(None)

    def _write_certificates(self, roll: Roll | None) -> None:
        members = roll.members.values() if roll is not None else ()
        TrustSet(member.certificate for member in members).save(self._folder / CERTIFICATES)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        private_folder(self._folder, forbidden=0o022)
        with locked(self._folder / "trust.lock"):
            yield


def to_bytes(roll: Roll) -> bytes:
    """A roll as it is kept and as a bundle file holds it."""
    return json.dumps([s.to_plain() for s in roll.statements.values()]).encode()


def parse(content: bytes) -> Roll:
    """Reads what `to_bytes` made, from anybody.

    Raises:
        AuthenticationError: it is no roll.
    """
    return Roll(statements_of(content))


def statements_of(content: bytes) -> list[Statement]:
    """Reads the statements in what `to_bytes` made, from anybody.

    Raises:
        AuthenticationError: it is not of that form.
    """
    if len(content) > LARGEST_BYTES:
        raise AuthenticationError("it is too large")
    try:
        plain = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise AuthenticationError("it is not JSON") from error
    if not isinstance(plain, list) or len(plain) > MOST_STATEMENTS:
        raise AuthenticationError("it is not a list of statements")
    return [Statement.from_plain(each) for each in plain]
