"""Exports as nobody should write them: records and whole files, spoilt in every way we know. Seeded."""

import gzip
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from streams.lab.generate import generate
from streams.lab.spelling import Format

FORMS: tuple[Format, ...] = get_args(Format)
Spoil = Callable[[bytes, random.Random], bytes]

#: What no decoder of UTF-8 takes: lone bytes, overlong forms, surrogates, beyond Unicode, cut short.
_NOT_UTF_8 = [b"\xff", b"\xc3", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80" * 9]
#: What it does take, and nobody expects: controls, other line breaks, marks, other digits.
_ODD = [
    b"\0", b"\x1a", b"\x1b[2J", b"\x7f", b"\r", b"\x0b", b"\x0c", *(text.encode() for text in (
        "\x85", "\u2028", "\ufeff", "\u202e", "\u0301" * 300, "\u0663\u0664",
        "\uff11", "\U0001f4a9", "\u00df", "\u0130", "\u00a0",
    )),
]  # fmt: skip
_DATES = [
    "12/31/9999", "01/01/0001", "00/00/0000", "02/29/2027", "02/29/2028", "13/13/2026", "9999-12-31",
    "03/08/2026", "11/01/2026",
    "3/8/26", "+1/01/2026", "\u0661\u0661/\u0660\u0661/2026", "11/01/2026" + " " * 500,
]  # fmt: skip
#: In the hours that a clock change skips and repeats, of the broadcast day's end and beyond.
_TIMES = [
    "02:30:00", "26:30:00", "01:30:00", "25:30:00.999", "24:00:00", "29:59:59", "29:59:59.999", "30:00:00",
    "23:59:60", "-1:00:00",
    "06:00", "99:99:99", "2:3:4", "12:00:00.1234567",
]  # fmt: skip
_MONEY = [
    "1e309",
    "NaN",
    "-0.00",
    "9" * 400,
    "9" * 15 + ".99",
    "1,2,3",
    "0x10",
    "1.005",
    "٣",
    "∞",
    "--1",
    "1.",
    ".5",
]


def _insert(data: bytes, what: bytes, choose: random.Random) -> bytes:
    at = choose.randrange(len(data) + 1)
    return data[:at] + what + data[at:]


def _flip(data: bytes, choose: random.Random) -> bytes:
    found = bytearray(data or b"x")
    for _ in range(choose.choice([1, 1, 2, 8])):
        found[choose.randrange(len(found))] ^= 1 << choose.randrange(8)
    return bytes(found)


def _cut(data: bytes, choose: random.Random) -> bytes:
    return data[: choose.randrange(len(data) + 1)] + choose.choice([b"", b"\n", b"\r\n"])


def _giant(data: bytes, choose: random.Random) -> bytes:
    return _insert(
        data,
        choose.choice([b"x", b"\xc3\xa9", b" ", b'""', b"\0"]) * choose.choice([130, 5000, 60_000]),
        choose,
    )


def _cell(pattern: bytes, others: list[str]) -> Spoil:
    """Puts something else in one place where there is something like it."""

    def spoil(data: bytes, choose: random.Random) -> bytes:
        places = list(re.finditer(pattern, data))
        if not places:
            return _flip(data, choose)
        place = choose.choice(places)
        return data[: place.start()] + choose.choice(others).encode() + data[place.end() :]

    return spoil


ANY: list[Spoil] = [
    _flip,
    _cut,
    _giant,
    _cell(rb"\d\d/\d\d/\d{4}", _DATES),
    _cell(rb"\d\d:\d\d:\d\d(\.\d+)?", _TIMES),
    _cell(rb"\d+\.\d\d", _MONEY),
    lambda data, choose: _insert(data, choose.choice(_NOT_UTF_8), choose),
    lambda data, choose: _insert(data, choose.choice(_ODD), choose),
    lambda data, choose: data * choose.choice([2, 3]),
    lambda data, choose: choose.randbytes(choose.randrange(200)) + b"\n",
]
_QUOTES: list[Spoil] = [
    lambda data, choose: _insert(data, choose.choice([b'"', b'""', b'"""', b'",', b'\n"', b'"\0"']), choose),
    lambda data, choose: b'"' + data,
]
_TABLE: list[Spoil] = [
    lambda data, choose: _insert(data, choose.choice([b",", b"\t", b";"]) * choose.choice([1, 2, 10_000]),
    choose),
]  # fmt: skip
_MARKS = [
    b"<", b">", b"&", b"<Record>", b"</Record>", b"<!--", b"-->", b"<![CDATA[", b"]]>", b"<?x", b"&#0;",
    b"&#xD800;", b"&lol9;",
    b"&amp;amp;", b"<a>" * 3000, b"<a>" * 90 + b"</a>" * 90, b"<a b='1' b='2'/>", b"<x:y/>", b"<!DOCTYPE a>",
    b" xmlns:x='y'",
]  # fmt: skip
_MARKUP: list[Spoil] = [
    lambda data, choose: _insert(data, choose.choice(_MARKS), choose),
    lambda data, choose: re.sub(
        rb"<(/?)(\w+)", lambda m: b"<" + m[1] + choose.choice([m[2], b"A", b"Spot_id"]), data, count=3
    ),
]
SPOILS: dict[Format, list[Spoil]] = {
    "csv": ANY + 2 * (_QUOTES + _TABLE),
    "tsv": ANY + 3 * _TABLE,
    "fixed": ANY,
    "xml": ANY + 4 * _MARKUP,
}

#: Nine levels of ten: a gigabyte of laughter, if anybody expands it.
LAUGHS = (
    b'<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol">'
    + b"".join(
        b'<!ENTITY lol%d "%b">' % (n, (b"&lol%d;" % (n - 1) if n > 1 else b"&lol;") * 10)
        for n in range(1, 10)
    )
    + b'<!ENTITY ext SYSTEM "file:///etc/passwd">]>\n'
)


def _wide(encoding: str) -> Spoil:
    def spoil(data: bytes, choose: random.Random) -> bytes:
        mark = choose.choice(["\ufeff", ""]).encode(encoding)
        return mark + data.decode("utf-8", "replace").encode(encoding) + choose.choice([b"", b"\0", b"x"])

    return spoil


def _damaged(data: bytes, choose: random.Random) -> bytes:
    packed = gzip.compress(data, mtime=0)
    return choose.choice([
        packed[: choose.randrange(len(packed))], _flip(packed, choose), packed + b"rubbish", packed + packed,
        packed[:10] + choose.randbytes(80), gzip.compress(packed), packed + bytes(5000),
    ])  # fmt: skip


def _head(data: bytes, choose: random.Random) -> bytes:
    """Another first line than the one there is."""
    head, _, rest = data.partition(b"\n")
    cells = head.split(b",")
    choose.shuffle(cells)
    other = choose.choice([
        b"", b",".join(cells), b",".join(cells + cells), b",".join(cells[:3]), b"," * 10_000, b"\0" * 50,
        _flip(head, choose),
        head.upper(), b"x" * 300_000, b'"' + head,
    ])  # fmt: skip
    return other + b"\n" + rest


#: Of a whole file. Most stay as their records are.
FILES: list[Spoil] = [
    *[lambda data, choose: data] * 7,
    lambda data, choose: b"\xef\xbb\xbf" + data,
    lambda data, choose: data.replace(b"\n", choose.choice([b"\r", b"\r\n", b"\n\n", b"\n\r"])),
    lambda data, choose: data[: choose.randrange(len(data))],
    lambda data, choose: choose.choice(
        [b"", b"\n", b"\0", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\x1f\x8b"]
    ),
    lambda data, choose: choose.randbytes(choose.randrange(5000)),
    lambda data, choose: LAUGHS + data.replace(b"</", b"&lol9;&ext;</", 3),
    lambda data, choose: gzip.compress(data),
    _wide("utf-16-le"),
    _wide("utf-16-be"),
    _damaged,
    _head,
]


def log(form: Format, records: int, seed: int) -> bytes:
    """A log of which half the records are spoilt, and then, perhaps, all of it."""
    choose = random.Random(seed)
    pieces = []
    for line in generate(records, seed, 0.1, form):
        data = line.data
        if line.number and choose.random() < 0.5:
            for _ in range(choose.choice([1, 1, 2])):
                data = choose.choice(SPOILS[form])(data, choose)
        pieces.append(data)
    return choose.choice(FILES)(b"".join(pieces), choose)


def write(folder: Path, form: Format, files: int, records: int, seed: int) -> int:
    """So many files of so many records; gives their bytes."""
    folder.mkdir()
    size = 0
    for number in range(files):
        data = log(form, records, seed * 1_000_000 + number)
        (folder / f"log-{number:05}.{form}").write_bytes(data)
        size += len(data)
    return size


def with_a_line(path: Path, head: bytes, size: int, rest: bytes) -> None:
    """A file with a line of NULs, of which the disk holds none."""
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)
        file.seek(0, 2)
        file.write(b"\n" + rest)


def bomb(path: Path, head: bytes, size: int, rest: bytes) -> None:
    """A gzip file that has a line of ``size`` spaces in it, about a thousand times as long as itself."""
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(head)
        for _ in range(0, size, 1 << 20):
            file.write(b" " * (1 << 20))
        file.write(b"\n" + rest)
