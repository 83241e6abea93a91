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
from streams.formats.rows import Rows, Unclear, shown
from streams.formats.table import Row

_UNBOUND = "unbound prefix"
_ELEMENT = re.compile(r"<[^!?]").match
_PREFIXES = re.compile(r"(?:</?|\s)([^\W\d][\w.-]*):(?=[^\W\d])")


class _Path(NamedTuple):
    """Where a column is: the steps down to an element, and the attribute of it, if it is one."""

    column: str
    text: str
    steps: Sequence[str]
    attribute: str

    @classmethod
    def of(cls, column: str, text: str) -> "_Path":
        """From the profile's spelling."""
        *steps, last = text.split("/")
        if last.startswith("@"):
            return cls(column, text, steps, last[1:])
        return cls(column, text, [*steps, last], "")


class XmlRows(Rows):
    """Elements. A field that has no element or attribute is empty; one that has two is not told."""

    def __init__(self, descriptor: Descriptor) -> None:
        super().__init__(descriptor.encoding)
        fields = descriptor.profile.xml.fields if descriptor.profile.xml else {}
        self._paths = [_Path.of(column, path) for column, path in fields.items()]
        self._depth = max((len(path.steps) for path in self._paths), default=0)
        self._texts = {path.text for path in self._paths if not path.attribute}
        self._prefixed = False

    def _read(self, texts: list[str]) -> list[Row | Reason | Unclear]:
        return [self._row(text) for text in texts]

    def _row(self, text: str) -> Row | Reason | Unclear:
        if not _ELEMENT(text):
            return Reason(field="", value=shown(text), rule="must be an element")
        try:
            record = self._parsed(text)
            found = {"name()": _local(record.tag)}
            if not self._gather(record, "", self._depth, found):
                return _told([_found(path, record) for path in self._paths])
            return [found.get(path.text, "") for path in self._paths]
        except ParseError as error:
            rule = f"must be a well-formed element: {ErrorString(error.code)}"
            return Reason(field="", value=shown(text), rule=rule)

    def _gather(self, element: Element, path: str, depth: int, found: dict[str, str]) -> bool:
        """Collect texts and attributes by path, ``depth`` levels down; gives whether each can be told."""
        for name, value in element.items():
            place = f"{path}@{_local(name)}"
            if place in found:
                return False
            found[place] = value
        for child in element:
            place = path + _local(child.tag)
            if place in found or (len(child) and place in self._texts):
                return False
            found[place] = child.text or ""
            if (
                depth
                and (len(child) or child.attrib)
                and not self._gather(child, f"{place}/", depth - 1, found)
            ):
                return False
        return True

    def _parsed(self, text: str) -> Element:
        """The element; raises ``ParseError`` for anything else."""
        if not self._prefixed:
            try:
                return _parse(text)
            except ParseError as error:
                if ErrorString(error.code) != _UNBOUND:
                    raise
                self._prefixed = True  # so are the others, most likely
        prefixes = set(_PREFIXES.findall(text)) - {"xml", "xmlns"}
        declared = " ".join(f"xmlns:{prefix}='{prefix}'" for prefix in prefixes)
        around = _parse(f"<_ {declared}>{text}</_>")
        if len(around) != 1 or (around[0].tail or "").strip():
            raise _junk()
        return around[0]


def _parse(text: str) -> Element:
    parser = XMLParser()  # noqa: S314 - defusedxml's refuses what cannot be in an element: see above
    parser.feed(text)
    element: Element = parser.close()
    return element


def _junk() -> ParseError:
    error = ParseError("junk after the element")
    error.code = 9  # expat's XML_ERROR_JUNK_AFTER_DOC_ELEMENT
    return error


def _local(name: str) -> str:
    """A name without its namespace."""
    return name.rpartition("}")[2] if name[:1] == "{" else name


def _told(found: list[str | Reason]) -> Row | Unclear:
    """The row of these texts, and of fields that cannot be told."""
    row = [one["value"] if isinstance(one, dict) else one for one in found]
    reasons = [one for one in found if isinstance(one, dict)]
    return Unclear(row, reasons) if reasons else row


def _found(path: _Path, record: Element) -> str | Reason:
    """The text or attribute at a path, or why it cannot be told."""
    element = record
    if path.steps == ["name()"]:
        return _local(record.tag)
    for step in path.steps:
        children = [child for child in element if _local(child.tag) == step]
        if not children:
            return ""
        if len(children) > 1:
            texts = ", ".join((child.text or "").strip() for child in children)
            rule = f"must be there once, {step} is there {len(children)} times"
            return Reason(field=path.column, value=shown(texts), rule=rule)
        (element,) = children
    if path.attribute:
        return next((value for name, value in element.items() if _local(name) == path.attribute), "")
    if len(element):
        rule = "must be text and hold no elements"
        return Reason(field=path.column, value=shown(element.text or ""), rule=rule)
    return element.text or ""
