"""Fixed-width records to rows: a field is where the profile says, counted in characters."""

from collections.abc import Callable
from operator import itemgetter

from schemas.descriptor import Descriptor
from schemas.letter import Reason
from streams.formats.rows import Rows, shown
from streams.formats.table import Row


class FixedRows(Rows):
    """Lines of fixed-width text. A line that is short is as if it were padded with blanks."""

    def __init__(self, descriptor: Descriptor) -> None:
        super().__init__(descriptor.encoding)
        cuts = [span.cut for spans in descriptor.profile.fixed.values() for span in spans.values()]
        # One slice more than there are fields: of a single one itemgetter would give no tuple.
        self._cut: Callable[[str], Row] = itemgetter(*cuts, slice(0, 0))
        self._length = descriptor.profile.line_length

    def _read(self, texts: list[str]) -> list[Row | Reason]:
        return [self._row(text.rstrip("\r\n")) for text in texts]

    def _row(self, line: str) -> Row | Reason:
        if "\0" in line:
            return Reason(field="", value=shown(line), rule="must not hold a NUL character")
        if 0 < self._length < len(line) and line[self._length :].strip():
            rule = f"must have at most {self._length} characters, has {len(line)}"
            return Reason(field="", value=shown(line), rule=rule)
        return self._cut(line)
