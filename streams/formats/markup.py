"""Framing of XML: blocks of a document become record elements, byte for byte. Pure.

The counterpart of :mod:`.framing` for markup, under the same contract. A record is an element of one
of the profile's names, whatever its prefix and wherever it stands; its bytes are its raw value. The prolog,
wrappers, and text, comments, CDATA sections and processing instructions between records are skipped. Nothing
is expanded or resolved, and nothing needs remembering between two records but where the last one ended.

A record ends with its end tag; elements of a record's name inside it are counted. What is not well-formed
ends where the next record starts, is a record by itself for the judge to reject, and costs its neighbours
nothing. That is so for

- a record that is not closed within ``limit`` bytes, :data:`NESTED` records or the document,
- a ``<`` that begins no tag, comment, section or instruction: inside a tag, or before a document type,
- a comment that holds ``--`` or is longer than ``limit``, likewise the other two,
- a record's end tag without its start, which is a record of its own.
"""

import re
from collections.abc import Sequence

from streams.formats.framing import HEAD, Framed, Oversized

#: Records that one record may hold inside it. One that holds more was never closed.
NESTED = 32

#: Bytes that the longest start of a record may take, up to the end of its name.
MARGIN = 1024

_PREFIX = rb"(?:[^\s<>/:!?\"'=]{1,64}+:)?+"
_ATTRIBUTES = rb"(?:[^<>\"']++|\"[^<\"]*+\"|'[^<']*+')*+"
_TAG = rb"</?+[^\s<>!?/\"'=]%b" % _ATTRIBUTES

#: What is neither tag nor text: how it begins and what ends it.
_ASIDES = {b"<!--": b"--", b"<![CDATA[": b"]]>", b"<?": b"?>"}

#: Answers of :meth:`_Scan.end`.
_OPEN, _BROKEN = -1, -2

_SLASH = 0x2F


class XmlFramer:
    """Frames one document, see :class:`.framing.Framing`. ``names`` are the record elements'."""

    def __init__(
        self, names: Sequence[bytes], limit: int, *, position: int = 0, number: int = 0, pending: int = 0
    ) -> None:
        self.position, self.number, self.pending = position, number, pending
        self._limit = limit
        self._grammar = _Grammar(names)
        self._held = b""
        self._head = b""  # of what is above the limit and has not ended yet
        self._passed = 0  # bytes of it that are not in ``_held`` any more

    @property
    def held(self) -> int:
        """Bytes after ``position`` that were fed and belong to what has not ended."""
        return self._passed + len(self._held)

    def feed(self, block: bytes, *, final: bool = False) -> Framed:
        """Frame what ``block`` completes; ``final`` says that the document ends with it."""
        scan = _Scan(self._grammar, self._held + block, self._limit)
        places: list[tuple[int, int, int, int, int]] = []
        oversized: list[Oversized] = []
        at = self._run_over(scan, oversized, final=final) if self._passed else 0
        if not self._passed:
            at = self._frame(scan, at, places, oversized, final=final)
        self._held = scan.data[at:]
        if len(self._held) > self._limit + MARGIN:
            self._pass_over()
        return Framed.placed(scan.data, places, oversized)

    def _frame(
        self,
        scan: "_Scan",
        at: int,
        places: list[tuple[int, int, int, int, int]],
        oversized: list[Oversized],
        *,
        final: bool,
    ) -> int:
        """Take everything that is complete from ``at`` on; gives where the rest begins."""
        data, base, done = scan.data, self.position - at, at - self.pending
        while (begin := scan.aside(at)) < len(data) and (end := self._end(scan, begin, final=final)) >= 0:
            self.number += 1
            if end - begin > self._limit:
                head = data[begin : min(end, begin + HEAD)]
                oversized.append(Oversized(base + begin, self.number, end - begin, head))
            else:
                places.append((begin, end - begin, base + begin, self.number, begin - done))
                done = end
            at = end
        self.position, self.pending = base + begin, begin - done
        return begin

    def _end(self, scan: "_Scan", at: int, *, final: bool) -> int:
        """Where what begins at ``at`` ends, a record or not; -1 where that is not known yet."""
        end = scan.end(at)
        if 0 <= end - at <= self._limit:
            return end
        if end == _OPEN and not final and len(scan.data) - at <= self._limit:
            return -1
        following = scan.start(at + 1)
        return len(scan.data) if following < 0 and final else following

    def _run_over(self, scan: "_Scan", oversized: list[Oversized], *, final: bool) -> int:
        """Look for the end of what is above the limit; gives where the rest of the data begins."""
        data, end = scan.data, scan.start(0)
        if end < 0 and not final:
            return 0
        end = len(data) if end < 0 else end
        size, head = self._passed + end, self._head + data[: min(end, HEAD - len(self._head))]
        self._passed, self._head = 0, b""
        self.number += 1
        oversized.append(Oversized(self.position, self.number, size, head))
        self.position += size
        self.pending += size
        return end

    def _pass_over(self) -> None:
        """Keep no more than what may begin the next record."""
        size = len(self._held) - MARGIN
        self._head += self._held[: min(size, HEAD - len(self._head))]
        self._passed += size
        self._held = self._held[size:]


class _Grammar:
    """Markup as patterns. Everything is possessive: no input makes them backtrack."""

    def __init__(self, names: Sequence[bytes]) -> None:
        name = rb"(?:%b)" % rb"|".join(sorted(map(re.escape, names), reverse=True))
        start = rb"<%b%b(?=[\s/>])" % (_PREFIX, name)
        end = rb"</%b%b(?=[\s>])" % (_PREFIX, name)
        aside = rb"|".join(map(re.escape, _ASIDES))
        self.start = re.compile(start).search
        self.opening = re.compile(rb"<(%b%b)(?=[\s/>])%b>" % (_PREFIX, name, _ATTRIBUTES)).match
        self.closing = re.compile(end + rb"[^<>]*+>").match
        #: Wherever a record's name may stand in a tag; found as fast as a literal when it is one.
        self.mention = re.compile(rb"%b[\s/>]" % (name if len(names) > 1 else re.escape(names[0]))).search
        self.token = re.compile(
            rb"(?P<start>%b%b>)|(?P<end>%b[^<>]*+>)|(?P<aside>%b)" % (start, _ATTRIBUTES, end, aside)
        ).match
        self.aside = re.compile(aside).match
        #: Text, and tags that neither begin nor end a record.
        self.between = re.compile(rb"(?:[^<]++|(?!%b|%b)%b>)*+" % (start, end, _TAG)).match
        self.tags = re.compile(_TAG + rb">").finditer
        self.tag_begins = re.compile(rb"(?:</?+|%b(?:\"[^<\"]*+|'[^<']*+)?+)\Z" % _TAG).match


class _Scan:
    """Looks through what there is of a document."""

    def __init__(self, grammar: _Grammar, data: bytes, limit: int) -> None:
        self.data, self._grammar, self._limit = data, grammar, limit
        self._known: dict[bytes, tuple[int, int]] = dict.fromkeys((*_ASIDES.values(), b"<!", b"<?"), (0, -1))

    def aside(self, at: int) -> int:
        """Where the run that is to be skipped ends: at a ``<`` that does not belong to it, or with the data.

        A tag or comment above the limit does not belong to it, whether all of it is there or not.
        """
        while True:
            end = self._between(at)
            if self.data[end + 1 : end + 2] not in (b"!", b"?"):
                return end
            opener = self._grammar.aside(self.data, end)
            after = self._after(opener) if opener else _OPEN
            if after < 0 or after - end > self._limit:
                return end
            at = after

    def _skip(self, at: int) -> int:
        """Where the text and the tags end that neither begin nor end a record."""
        return self._grammar.between(self.data, at).end()  # type: ignore[union-attr] # it matches nothing, too

    def _between(self, at: int) -> int:
        end = self._skip(at)
        if end - at > self._limit:
            for tag in self._grammar.tags(self.data, at, end):
                if tag.end() - tag.start() > self._limit:
                    return tag.start()
        return end

    def start(self, at: int) -> int:
        """Where the next record starts, whatever it stands in; -1: nowhere."""
        found = self._grammar.start(self.data, at)
        return found.start() if found else -1

    def end(self, at: int) -> int:
        """Where the record ends that starts at ``at``, or the end tag of one that has no start.

        :data:`_OPEN` where it may still end, :data:`_BROKEN` where it cannot or none begins.
        """
        data, grammar = self.data, self._grammar
        opening = grammar.opening(data, at)
        if not opening:
            stray = grammar.closing(data, at)
            return stray.end() if stray else self._unfinished(at)
        begin = opening.end()
        if data[begin - 2] == _SLASH:
            return begin
        mention = grammar.mention(data, begin)
        last = mention.end() if mention else len(data)
        if self._next(b"<!", begin) >= last and self._next(b"<?", begin) >= last:
            if not mention:
                return _OPEN
            closing = b"</%b>" % opening[1]
            if data.startswith(closing, max(begin, last - len(closing)), last):
                return last
        return self._end_by_counting(at, begin)

    def _end_by_counting(self, at: int, begin: int) -> int:
        depth, starts = 1, 0
        while (begin := self._skip(begin)) < len(self.data):
            token = self._grammar.token(self.data, begin)
            if not token:
                return self._unfinished(begin)
            sort, begin = token.lastgroup, token.end()
            if sort == "aside" and (begin := self._after(token)) < 0:
                return begin
            if begin - at > self._limit:
                return _BROKEN
            if sort == "end":
                depth -= 1
                if not depth:
                    return begin
            elif sort == "start" and self.data[begin - 2] != _SLASH:
                depth, starts = depth + 1, starts + 1
                if starts > NESTED:
                    return _BROKEN
        return _OPEN

    def _after(self, opener: re.Match[bytes]) -> int:
        """Where the comment, section or instruction ends that begins with ``opener``."""
        mark = _ASIDES[opener[0]]
        end = self._next(mark, opener.end())
        if end == len(self.data):
            return _OPEN
        if mark != b"--":
            return end + len(mark)
        last = self.data[end + 2 : end + 3]
        return end + 3 if last == b">" else _BROKEN if last else _OPEN

    def _next(self, mark: bytes, at: int) -> int:
        """Where ``mark`` is next, the end of the data if nowhere; no stretch is searched twice for it."""
        begin, found = self._known[mark]
        if not begin <= at <= found:
            found = self.data.find(mark, at)
            found = len(self.data) if found < 0 else found
            self._known[mark] = at, found
        return found

    def _unfinished(self, at: int) -> int:
        """Of a ``<`` that begins nothing whole."""
        opener = self._grammar.aside(self.data, at)
        if opener:
            after = self._after(opener)
            return _BROKEN if after >= 0 else after
        rest = self.data[at : at + 9]
        if self._grammar.tag_begins(self.data, at) or (
            at + len(rest) == len(self.data) and any(known.startswith(rest) for known in _ASIDES)
        ):
            return _OPEN
        return _BROKEN
