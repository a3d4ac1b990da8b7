"""Data as people have it: nothing is rounded, renamed or lost without a word."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit import tables
from agentkit.artifacts import Dataset
from agentkit.errors import WrongInput
from agentkit.tables import decode_columns, encode_columns, read_rows, read_table

SEPARATORS = ("\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e")


def packed(data: bytes) -> bytes:
    """Return gzip of data without the time, which the names of tests would differ by."""
    return gzip.compress(data, mtime=0)


@pytest.mark.parametrize("separator", SEPARATORS)
def test_only_a_newline_ends_a_line(separator: str) -> None:
    rows = [{"text": f"one{separator}two"}]
    written = Dataset.dump(rows)
    assert read_rows(written.read(), "rows.jsonl") == rows
    assert written.rows() == rows


@given(st.lists(st.dictionaries(st.text(min_size=1), st.text() | st.integers() | st.none())))
def test_what_a_table_writes_it_reads(rows: list[dict[str, object]]) -> None:
    assert read_rows(Dataset.dump(rows).read(), "rows.jsonl") == rows


def test_windows_lines_and_blank_ones_are_no_rows() -> None:
    assert read_rows(b'{"n": 1}\r\n\r\n{"n": 2}\r\n', "rows.jsonl") == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"n": 1}\n{"n": NaN}\n', ["line 2", "NaN"]),
        (b'{"n": 1e999}\n', ["line 1", "too large"]),
        (b'{"n": 1, "n": 2}\n', ["line 1", "'n'", "twice"]),
        (b'{"n": "\\ud800"}\n', ["line 1", "surrogate"]),
        (b"[" * 100_000 + b"\n", ["line 1", "nested deeper"]),
        (b'{"n": ' + b"9" * 5000 + b"}\n", ["line 1", "digits"]),
        (b"[1]\n", ["line 1", "not an object"]),
        (b'{"n": 1\n', ["line 1"]),
        ('{"n": "é"}\n'.encode("latin-1"), ["line 1", "0xe9"]),
    ],
)
def test_json_that_cannot_be_kept_names_file_and_row(data: bytes, words: list[str]) -> None:
    with pytest.raises(WrongInput) as refused:
        read_rows(data, "rows.jsonl")
    assert all(word in str(refused.value) for word in ["rows.jsonl", *words])
    assert refused.value.hint


@pytest.mark.parametrize(
    ("name", "data", "rows"),
    [
        ("a.csv", b"text,label\na,x\n", [{"text": "a", "label": "x"}]),
        ("a.csv", b"text;label\n1,5;x\n", [{"text": "1,5", "label": "x"}]),
        ("a.csv", b"text\tlabel\na;b\tx\n", [{"text": "a;b", "label": "x"}]),
        ("a.csv", b'"a,b";c\n1;2\n', [{"a,b": "1", "c": "2"}]),
        ("a.tsv", b"text\tlabel\na,b\tx\n", [{"text": "a,b", "label": "x"}]),
        ("a.csv", b"\xef\xbb\xbftext\na\n", [{"text": "a"}]),
        ("a.csv", "text\né\n".encode("utf-16"), [{"text": "é"}]),
        ("a.csv.gz", packed(b"text\na\n"), [{"text": "a"}]),
        ("a.jsonl.gz", packed(b'{"n": 1}\n'), [{"n": 1}]),
        ("https://host/a.csv?version=2", b"text\na\n", [{"text": "a"}]),
        ("a.csv", b"text\n" + b"a" * 140_000, [{"text": "a" * 140_000}]),
        ("a.csv", b",text\n0,a\n", [{"index": "0", "text": "a"}]),
        ("a.csv", b"text,label\na\n", [{"text": "a", "label": None}]),
        ("a.csv", b'text\n"one\ntwo"\n', [{"text": "one\ntwo"}]),
        ("a.csv", b"text\r\na\r\n\r\nb\r\n", [{"text": "a"}, {"text": "b"}]),
    ],
)
def test_tables_are_read_as_they_stand(
    name: str, data: bytes, rows: list[dict[str, object]]
) -> None:
    assert read_rows(data, name) == rows


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.csv", b"text,text\na,b\n", ["two columns", "'text'"]),
        ("a.csv", b"text,label\na,x,extra\n", ["line 2", "3 fields", "2 columns"]),
        ("a.csv", b"text,,label\na,b,x\n", ["column 2", "no name"]),
        ("a.csv", b'text\n"a\n', ["line 2"]),
        ("a.csv", "text\né\n".encode("latin-1"), ["line 2", "0xe9"]),
        ("a.parquet", b"PAR1", [".parquet"]),
        ("a.xlsx", b"PK", [".xlsx"]),
        ("a.csv.zst", b"(", [".zst"]),
        ("a.csv.gz", packed(b"text\na\n")[:-9], ["gzip"]),
        ("a.csv.gz", b"text\na\n", ["gzip"]),
    ],
)
def test_what_would_lose_something_is_refused_by_name(
    name: str, data: bytes, words: list[str]
) -> None:
    with pytest.raises(WrongInput) as refused:
        read_rows(data, name)
    assert all(word in str(refused.value) for word in [name, *words])
    assert refused.value.hint


def test_gzip_is_not_unpacked_beyond_what_a_table_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentkit.tables.MAX_BYTES", 1000)
    with pytest.raises(WrongInput, match="unpacks to more"):
        read_rows(packed(b"x" * 2000), "a.csv.gz")


def test_columns_are_known_without_rows() -> None:
    table = read_table(b"text,label\n", "a.csv")
    assert table.rows == []
    empty = Dataset.dump(table.rows, table.columns)
    assert empty.columns == {"text": "text", "label": "text"}
    assert empty.digest == Dataset.dump([]).digest, "the bytes are the identity, and there are none"


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.sampled_from(["text", "whole", "number", "bool", "nested"]),
        min_size=1,
    )
)
def test_columns_travel_in_the_media_type(columns: dict[str, str]) -> None:
    media_type = f"application/jsonl; {encode_columns(columns)}"  # type: ignore[arg-type]
    assert list(decode_columns(media_type).items()) == list(columns.items())
    assert media_type.isascii()
    assert "\n" not in media_type


@pytest.mark.parametrize("said", ["", "text/plain", 'a; columns="', 'a; columns="' + "a&" * 20_000])
def test_a_media_type_of_a_stranger_tells_nothing_or_columns(said: str) -> None:
    assert dict(decode_columns(said)) == {}


def test_types_of_columns_are_those_of_their_values() -> None:
    rows = b'{"a": 1, "b": null, "c": 1}\n{"a": 2, "b": "x", "c": 0.5, "d": [1]}\n{"e": true}'
    assert dict(read_table(rows, "a.jsonl").columns) == {
        "a": "whole",
        "b": "text",
        "c": "number",
        "d": "nested",
        "e": "bool",
    }


def test_short_rows_of_a_wide_csv_do_not_fill_the_memory() -> None:
    """Each row of two bytes would become 10,000 fields: 30 KB packed would take gigabytes."""
    head = ",".join(f"c{number}" for number in range(10_000))
    data = packed(f"{head}\n".encode() + b"1\n" * 20_000)
    with pytest.raises(WrongInput, match="lack more than 10,000,000 fields") as refused:
        read_table(data, "rows.csv.gz")
    assert "line 1002" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("rows.csv", b"n\n" + b"1\n" * 8),
        ("rows.jsonl", b"{}\n" * 8),
        ("rows.json", b"[" + b"{}," * 7 + b"{}]"),
    ],
)
def test_tiny_rows_are_bounded_by_their_number(
    name: str, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MAX_ROWS", 8)
    assert len(read_table(data, name).rows) == 8
    monkeypatch.setattr(tables, "MAX_ROWS", 7)
    with pytest.raises(WrongInput, match="more than 7 rows"):
        read_table(data, name)
