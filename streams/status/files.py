"""What the tailers have published, as their checkpoints tell: files, records, how much is left."""

from typing import NamedTuple

import orjson

from streams.tail.checkpoint import CLAIM, Checkpoint


class _File(NamedTuple):
    path: str
    records: int
    behind: int
    finished: bool
    gone: bool
    at: str


class Published(NamedTuple):
    """Of all files. ``behind``: bytes that a tailer had seen when it last published, and not published.

    ``gone``: files that were destroyed before their end was read; ``last``: when anything was published.
    """

    files: int
    growing: int
    records: int
    behind: int
    gone: int
    last: str


class Files:
    """Takes the messages of ``avion.tail.checkpoints`` and ``avion.files`` as they come."""

    def __init__(self) -> None:
        self._files: dict[bytes, _File] = {}
        self._records = self._behind = 0
        #: By the descriptor's id, hex.
        self.paths: dict[str, str] = {}

    def describe(self, key: bytes, value: bytes | None) -> None:
        """A file's descriptor."""
        try:
            self.paths[key.hex()] = str(orjson.loads(value or b"")["path"])
        except (ValueError, TypeError, LookupError):
            self.paths.pop(key.hex(), None)

    def take(self, key: bytes, value: bytes | None) -> None:
        """A checkpoint; what a tailer says of itself is passed over."""
        if key.startswith(CLAIM):
            return
        if known := self._files.pop(key, None):
            self._records -= known.records
            self._behind -= known.behind
        file = _file(value)
        if file:
            self._files[key] = file
            self._records += file.records
            self._behind += file.behind

    def published(self) -> Published:
        """As of the last message."""
        files = list(self._files.values())
        return Published(
            len(files),
            sum(not file.finished for file in files),
            self._records,
            self._behind,
            sum(file.gone for file in files),
            max((file.at for file in files), default=""),
        )


def _file(value: bytes | None) -> _File | None:
    """None for a copy of another file, too, of which nothing is published; and for what is no checkpoint."""
    try:
        said = Checkpoint.model_validate_json(value or b"")
    except ValueError:
        return None
    if said.copy_of:
        return None
    ended = said.finished or said.gone
    # What a gzip file holds beyond the position is known once it has been read.
    behind = 0 if ended else max(0, said.size - said.position)
    return _File(said.path, said.records, behind, ended, said.gone, said.at)
