"""The panel: for every file that has records in a window, who judges them. Pure."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from schemas import rawkey
from schemas.descriptor import Descriptor
from schemas.errors import UsageError
from schemas.letter import Reason
from schemas.records import Invalid, Verdict
from streams.validate.judge import Judge
from topics.record import Record

_MISKEYED = Invalid([Reason(field="", value="", rule="its key is not a raw record's")], "")
_UNDESCRIBED = Invalid([Reason(field="", value="", rule="its file's descriptor is not on avion.files")], "")


class Seat(NamedTuple):
    """A file's descriptor, and its judge; or, where no judge can be made of the descriptor, the verdict."""

    descriptor: Descriptor
    judge: Judge | Invalid

    @classmethod
    def of(cls, descriptor: Descriptor) -> "Seat":
        """Never raises: a descriptor that is unusable costs the records of its file, not the process."""
        try:
            return cls(descriptor, Judge(descriptor))
        except UsageError as problem:
            return cls(descriptor, Invalid([Reason(field="", value="", rule=str(problem))], ""))


#: By descriptor id. A file whose descriptor is unknown has no seat.
Panel = Mapping[bytes, Seat]


def identities(window: Sequence[Record]) -> list[bytes]:
    """Of each record the id of its file's descriptor; empty when its key is not one of ours."""
    keys = [raw.key or b"" for raw in window]
    return [key[:16] if len(key) == rawkey.SIZE else b"" for key in keys]


def verdicts(window: Sequence[Record], panel: Panel) -> list[Verdict]:
    """One verdict per record, in order."""
    by_file: dict[bytes, list[int]] = defaultdict(list)
    for index, file in enumerate(identities(window)):
        by_file[file].append(index)
    found: list[Verdict] = [_UNDESCRIBED] * len(window)
    for file, indices in by_file.items():
        for index, verdict in zip(indices, _of_file(file, [window[i] for i in indices], panel), strict=True):
            found[index] = verdict
    return found


def _of_file(file: bytes, raws: Sequence[Record], panel: Panel) -> list[Verdict]:
    if not file:
        return [_MISKEYED] * len(raws)
    seat = panel.get(file)
    judge = seat.judge if seat else _UNDESCRIBED
    if isinstance(judge, Invalid):
        return [judge] * len(raws)
    return judge.judge([raw.value or b"" for raw in raws])
