"""Formats: for each what reads its records. :mod:`.framers` has what frames a file of it."""

from schemas.descriptor import Descriptor
from streams.formats.elements import XmlRows
from streams.formats.positions import FixedRows
from streams.formats.rows import DelimitedRows, Rows

_ROWS: dict[str, type[DelimitedRows | FixedRows | XmlRows]] = {
    "csv": DelimitedRows,
    "tsv": DelimitedRows,
    "fixed": FixedRows,
    "xml": XmlRows,
}


def rows(descriptor: Descriptor) -> Rows:
    """What reads the records of a file."""
    return _ROWS[descriptor.format](descriptor)
