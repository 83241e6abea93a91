"""XML records to rows: an element is parsed by itself, and a field is where the profile's path leads.

No record can make the parser read or grow anything: what is parsed begins with an element's tag, so it has
no document type, and without one there are no entities but XML's own five. Prefixes that are declared outside
the element are declared anew around it, since names are compared without them.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError, XMLParser
from xml.parsers.expat import ErrorString

from schemas.descriptor import Descriptor
from schemas.letter import Reason
from streams.rows import Row, Rows, shown

_ELEMENT = re.compile(r"<[^!?]").match
_PREFIXES = re.compile(r"(?:</?|\s)([^\W\d][\w.-]*):(?=[^\W\d])")


class _Path(NamedTuple):
    """Where a column is: the steps down to an element, and the attribute of it, if it is one."""

    column: str
    steps: Sequence[str]
    attribute: str

    @classmethod
    def of(cls, column: str, path: str) -> "_Path":
        """From the profile's spelling."""
        *steps, last = path.split("/")
        return cls(column, steps, last[1:]) if last.startswith("@") else cls(column, [*steps, last], "")


class _Unclear(Exception):
    """A field that cannot be told: the column, what is there, the rule."""


class XmlRows(Rows):
    """Elements. A field that has no element or attribute is empty; one that has two is not told."""

    def __init__(self, descriptor: Descriptor) -> None:
        super().__init__(descriptor.encoding)
        fields = descriptor.profile.xml.fields if descriptor.profile.xml else {}
        self._paths = [_Path.of(column, path) for column, path in fields.items()]

    def _read(self, texts: list[str]) -> list[Row | Reason]:
        return [self._row(text) for text in texts]

    def _row(self, text: str) -> Row | Reason:
        if not _ELEMENT(text):
            return Reason(field="", value=shown(text), rule="must be an element")
        try:
            record = _parse(text)
            children = {_local(child.tag): child for child in record}
            if len(children) == len(record):
                return [self._quickly(path, record, children) for path in self._paths]
            return [_found(path, record) for path in self._paths]
        except ParseError as error:
            rule = f"must be a well-formed element: {ErrorString(error.code)}"
            return Reason(field="", value=shown(text), rule=rule)
        except _Unclear as unclear:
            column, value, rule = unclear.args
            return Reason(field=column, value=shown(value), rule=rule)

    @staticmethod
    def _quickly(path: _Path, record: Element, children: dict[str, Element]) -> str:
        """:func:`_found` for the usual case: a child that is the only one of its name and has none itself."""
        if len(path.steps) == 1 and not path.attribute:
            child = children.get(path.steps[0])
            if child is not None and not len(child):
                return child.text or ""
        return _found(path, record)


def _parse(text: str) -> Element:
    """The element; raises ``ParseError`` for anything else."""
    parser = XMLParser()  # noqa: S314 - defusedxml's refuses what cannot be in an element: see above
    prefixes = set(_PREFIXES.findall(text)) - {"xml", "xmlns"}
    if not prefixes:
        parser.feed(text)
        element: Element = parser.close()
        return element
    declared = " ".join(f"xmlns:{prefix}='{prefix}'" for prefix in prefixes)
    parser.feed(f"<_ {declared}>{text}</_>")
    (element,) = parser.close()
    return element


def _local(name: str) -> str:
    """A name without its namespace."""
    return name.rpartition("}")[2]


def _found(path: _Path, record: Element) -> str:
    element = record
    if path.steps == ["name()"]:
        return _local(record.tag)
    for step in path.steps:
        children = [child for child in element if _local(child.tag) == step]
        if not children:
            return ""
        if len(children) > 1:
            shown_ = ", ".join((child.text or "").strip() for child in children)
            raise _Unclear(path.column, shown_, f"must be there once, {step} is there {len(children)} times")
        (element,) = children
    if path.attribute:
        return next((value for name, value in element.items() if _local(name) == path.attribute), "")
    if len(element):
        raise _Unclear(path.column, element.text or "", "must be text and hold no elements")
    return element.text or ""
