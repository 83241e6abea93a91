"""The batch: one body for the same records, however it travels, and everybody reads it back."""

import gzip
from email.parser import BytesParser
from email.policy import HTTP
from hashlib import sha256

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.batch import Batch, Source, Upload, build, plain, records_of, runs

STRATEGIES = (Upload("json"), Upload("multipart"))
TEXT = st.text(max_size=40) | st.sampled_from(["\r\n--", "--", "\r", "\n", '"', "\u2028", "é\x00"])
RECORDS = st.lists(
    st.dictionaries(st.sampled_from(["a", "b", "text"]), TEXT | st.integers(-(2**53), 2**53), min_size=1),
    min_size=1,
    max_size=8,
)


def parts(records: list[dict[str, object]]) -> list[tuple[str, bytes]]:
    bodies = [orjson.dumps(record) for record in records]
    return [(sha256(body).hexdigest(), body) for body in bodies]


@settings(max_examples=60)
@given(records=RECORDS, upload=st.sampled_from(STRATEGIES))
def test_what_is_built_is_read_back_and_built_the_same_again(
    records: list[dict[str, object]], upload: Upload
) -> None:
    made = build(parts(records), upload)
    assert made == build(parts(records), upload)
    expected = [{"idempotency_key": key} | orjson.loads(body) for key, body in parts(records)]
    assert records_of(made) == expected


@given(records=RECORDS)
def test_the_key_is_sha_256_over_the_hashes_in_order(records: list[dict[str, object]]) -> None:
    """Worked out here once more: whoever changes it books batches again that are on their way."""
    hashes = [placement for placement, _ in parts(records)]
    expected = sha256(b"".join(map(bytes.fromhex, hashes))).hexdigest()
    assert build(parts(records)).key == expected
    assert build(parts(records)).batch_id == expected[:32]


@settings(max_examples=60)
@given(records=RECORDS)
def test_a_multipart_body_is_what_a_parser_of_mime_makes_of_it(records: list[dict[str, object]]) -> None:
    made = build(parts(records), Upload("multipart"))
    assert made.upload == "multipart"
    head = f"Content-Type: {made.content_type}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + gzip.decompress(made.body))
    manifest, lines = message.iter_parts()
    assert manifest.get_param("name", header="content-disposition") == "manifest"
    assert manifest.get_content_type() == "application/json"
    assert lines.get_param("name", header="content-disposition") == "records"
    assert lines.get_content_type() == "application/x-ndjson"
    assert orjson.loads(manifest.get_payload()) == {"batch_id": made.batch_id, "records": len(records)}
    assert len(lines.get_payload().split("\n")) == len(records)


def test_the_strategy_changes_neither_key_nor_id_and_is_in_the_headers() -> None:
    records = parts([{"n": 1}, {"n": 2}])
    by_strategy = [build(records, upload) for upload in STRATEGIES]
    assert {made.key for made in by_strategy} == {by_strategy[0].key}
    assert {made.batch_id for made in by_strategy} == {by_strategy[0].batch_id}
    uploads = [dict(made.headers(Source(0, 0, 1, 2, "0-1"), [], [], 0))["upload"] for made in by_strategy]
    assert uploads == [b"json", b"multipart"]


def test_auto_goes_by_size() -> None:
    records = parts([{"n": 1}])
    size = len(records[0][1]) + len('"idempotency_key":"",') + 64
    assert build(records, Upload("auto", size)).upload == "json"
    assert build(records, Upload("auto", size - 1)).upload == "multipart"
    assert build(records).upload == "json"


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data; boundary=x"])
@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{}", b"nonsense"])
def test_a_body_of_somebody_else_is_a_value_error(content_type: str, body: bytes) -> None:
    for packed, encoding in ((gzip.compress(body), "gzip"), (body, "identity")):
        with pytest.raises(ValueError, match=r"\w"):
            records_of(Batch("k", "b", packed, 1, content_type, encoding))


@pytest.mark.parametrize("body", [b"plain", gzip.compress(b"x" * 99, mtime=0)[:-5]])
def test_what_is_not_gzip_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match="not gzip"):
        plain(body, "gzip")


@given(offsets=st.sets(st.integers(0, 60), min_size=1))
def test_runs_are_read_back(offsets: set[int]) -> None:
    ascending = sorted(offsets)
    first, last = ascending[0], ascending[-1]
    source = Source(0, first, last, last - first + 1, runs(ascending, first))
    assert source.expand() == ascending
