"""The open dead letters as the page has them: followed, counted, filtered; originals are not kept."""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from sys import intern
from typing import Any, NamedTuple

from schemas import airing
from schemas.letter import stamp
from streams import moment
from streams.recovery import letters
from streams.recovery.letters import Stored

#: Letters that are known one by one; of more than that, the ones that failed last.
MOST = 50_000

_TEXT = 300  #: characters of what is said about a letter
_OPEN, _UNDER_WAY, _FAILED, _LEFT = "open", "under way", "failed again", "left alone"
STATES = (_OPEN, _UNDER_WAY, _FAILED, _LEFT)

#: What is said of a stranger's message.
_UNREADABLE = {"kind": "unknown", "stage": "unknown", "reason": "unreadable", "last_failure": ""}


class Letter(NamedTuple):
    """What the list tells of one. ``about``: the fields at fault, or what Avstar answered."""

    key: str
    kind: str
    stage: str
    reason: str
    about: tuple[str, ...]
    what: str
    record_type: str
    records: int
    files: tuple[str, ...]  #: ids of descriptors
    number: int
    last_failure: str
    state: str
    messages: dict[bytes, tuple[int, int]]  #: message key → partition and offset


class Cause(NamedTuple):
    """Why letters are there, as they are counted."""

    stage: str
    reason: str
    about: str


class Wanted(NamedTuple):
    """Which letters; empty: any. ``kind`` is record or batch, or a kind of record.

    ``file``: a path or the end of one. ``older``, ``newer``: last failed before or after this moment.
    """

    reason: str = ""
    about: str = ""
    stage: str = ""
    kind: str = ""
    state: str = ""
    file: str = ""
    older: str = ""
    newer: str = ""

    def of(self, letters: Iterable[Letter], paths: Mapping[str, str]) -> list[Letter]:
        """Those that match, the last to fail first; ``paths`` by the descriptors' ids.

        Raises :class:`UsageError` for what is no moment.
        """
        now = datetime.now(UTC)
        before = stamp(moment.parse(self.older, now, name="older")) if self.older else ""
        after = stamp(moment.parse(self.newer, now, name="newer")) if self.newer else ""
        end = "/" + self.file.lstrip("./")
        files = {file for file, path in paths.items() if path == self.file or path.endswith(end)}
        found = [
            letter
            for letter in letters
            if self.reason in ("", letter.reason)
            and self.stage in ("", letter.stage)
            and self.state in ("", letter.state)
            and self.kind in ("", letter.kind, letter.record_type)
            and (not self.about or self.about in letter.about)
            and (not self.file or not files.isdisjoint(letter.files))
            and (not before or "" < letter.last_failure < before)
            and (not after or letter.last_failure > after)
        ]
        return sorted(found, key=lambda letter: letter.last_failure, reverse=True)


class Letters:
    """Takes the messages of ``avstar.dlq`` as they come. One thread takes, others may ask meanwhile."""

    def __init__(self, max_redrives: int, most: int = MOST) -> None:
        self._max_redrives, self._most = max_redrives, most
        self._open: dict[str, Letter] = {}
        self._airs: dict[str, tuple[int, Counter[str]]] = {}
        self._causes: Counter[Cause] = Counter()
        self._records: Counter[Cause] = Counter()
        self.records = 0  #: of all of them
        self.forgotten = 0  #: letters beyond :data:`MOST`

    def take(self, message_key: bytes, value: bytes | None, place: tuple[int, int]) -> None:
        """A message: a letter, a part of one, or with no value the end of either."""
        key = letters.whole(message_key)
        known = self._drop(key)
        messages = known.messages if known else {}
        if value is None:
            messages.pop(message_key, None)
            if known and messages:
                self._add(known)
            return
        said = letters.told(value) or _UNREADABLE
        if not said.get("part"):
            messages = {}
        self._add(self._letter(key, said, messages | {message_key: place}))
        self._learn_airing(key, said)
        if len(self._open) > self._most:
            self._drop(next(iter(self._open)))
            self.forgotten += 1

    def _letter(self, key: str, said: Mapping[str, Any], messages: dict[bytes, tuple[int, int]]) -> Letter:
        place: Mapping[str, Any] = said.get("place") or {}
        headers: Mapping[str, str] = said.get("headers") or {}
        files = (place.get("descriptor", ""), *headers.get("files", "").split(","))
        stage = intern(said["stage"])
        reasons = [
            (reason["value" if stage == "dispatch" else "field"], reason["rule"])
            for reason in said.get("reasons", ())
        ]
        return Letter(
            key,
            intern(said["kind"]),
            stage,
            intern(said["reason"]),
            tuple(intern(about[:_TEXT]) for about, _ in dict(reasons).items()) or ("",),
            intern("; ".join(f"{about}: {rule}" if about else rule for about, rule in reasons)[:_TEXT]),
            intern(said.get("record_type", "")),
            said.get("records", 1),
            tuple(intern(file) for file in files if file),
            place.get("number", 0),
            said["last_failure"],
            self._state(said),
            messages,
        )

    def _state(self, said: Mapping[str, Any]) -> str:
        if said.get("under_way"):
            return _UNDER_WAY
        retried = said.get("retry_count", 0)
        return _OPEN if not retried else _LEFT if retried >= self._max_redrives else _FAILED

    def _learn_airing(self, key: str, said: Mapping[str, Any]) -> None:
        text = (said.get("headers") or {}).get(airing.HEADER, "")
        # While a redrive is under way it is its batch that waits.
        if text and not said.get("under_way"):
            place = said.get("place") or {}
            source = said.get("source") or [-1]
            with suppress(ValueError):
                self._airs[key] = place.get("partition", source[0]), airing.read(text)

    def _add(self, letter: Letter) -> None:
        self._open[letter.key] = letter
        self._tally(letter, 1)

    def _drop(self, key: str) -> Letter | None:
        self._airs.pop(key, None)
        letter = self._open.pop(key, None)
        if letter:
            self._tally(letter, -1)
        return letter

    def _tally(self, letter: Letter, sign: int) -> None:
        self.records += sign * letter.records
        for about in letter.about:
            cause = Cause(letter.stage, letter.reason, about)
            self._causes[cause] += sign
            self._records[cause] += sign * letter.records
            if not self._causes[cause]:
                del self._causes[cause], self._records[cause]

    def __len__(self) -> int:
        return len(self._open)

    def causes(self, most: int) -> list[tuple[Cause, int, int]]:
        """Each cause with its letters and their records, most records first; a letter may have several."""
        return [(cause, self._causes[cause], records) for cause, records in self._records.most_common(most)]

    def all(self) -> list[Letter]:
        """Every open letter."""
        return list(self._open.values())

    def stored(self, key: str) -> Stored | None:
        """Where the letter lies; None when it is not open."""
        letter = self._open.get(key)
        return Stored(letter.key, {}, letter.messages) if letter else None

    def airing(self) -> list[tuple[int, Counter[str]]]:
        """Of each letter whose spots were validated: its raw partition, and how many air in which hour."""
        return list(self._airs.values())
