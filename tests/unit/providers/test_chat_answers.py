"""Reading what chat endpoints send: names of models, charsets, packings, streams, errors."""

import gzip
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.providers.http import Answer
from agentkit.providers.http_bodies import BodyTooLarge, unpacked
from agentkit.providers.openai.counts import counted_in
from agentkit.providers.openai.documents import BrokenOff, document_in
from agentkit.providers.openai.error_bodies import is_not_there, is_rate_limit
from agentkit.providers.openai.names import is_same_model


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("gpt-x", "gpt-x"),
        ("gpt-x", "GPT-X"),
        ("gpt-x", "openai/gpt-x"),
        ("models/gpt-x", "gpt-x"),
        ("gpt-x", "gpt-x-2024-07-18"),
        ("gpt-x", "openai/gpt-x-20240718"),
        ("theirs/gpt-x", "Theirs/GPT-x"),
    ],
)
def test_what_names_no_other_model_is_the_same_one(asked: str, answered: str) -> None:
    assert is_same_model(asked, answered)


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("theirs/llama", "others/llama"),  # weights of somebody else
        ("gpt-x", "gpt-x-mini"),
        ("gpt-x", "gpt-x-mini-2024-07-18"),
        ("gpt-x", "gpt-x:free"),
        ("gpt-x", "gpt-x-0613"),
        ("gpt-x", "gpt-x-2024"),
        ("gpt-x-2024-07-18", "gpt-x"),
        ("gpt-x-2024-07-18", "gpt-x-2025-01-01"),
        ("gpt-x", ""),
        ("gpt-x", "/"),
    ],
)
def test_what_may_be_other_weights_is_not(asked: str, answered: str) -> None:
    assert not is_same_model(asked, answered)


# -- bodies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_small_body_that_unpacks_to_a_large_one_is_let_go(pack: Any) -> None:
    coding = "gzip" if pack is gzip.compress else "deflate"
    bomb = pack(b" " * (1 << 24))
    with pytest.raises(BodyTooLarge):
        unpacked(bomb, coding, 1 << 20)
    twice = pack(bomb)
    with pytest.raises(BodyTooLarge):
        unpacked(twice, f"{coding}, {coding}", 1 << 20)


@given(st.binary(max_size=64), st.sampled_from(["gzip", "deflate", "br", "", "gzip, deflate"]))
def test_no_body_raises_what_is_not_said(body: bytes, coding: str) -> None:
    try:
        assert isinstance(unpacked(body, coding, 1000), bytes)
    except ValueError as error:
        assert str(error)


def answered(body: bytes, content_type: str = "application/json") -> Any:
    return document_in(Answer(200, {"content-type": content_type}, body))


@given(
    st.binary(max_size=200),
    st.sampled_from(["application/json", "text/event-stream", "x;charset=zip"]),
)
def test_no_document_raises_what_is_not_said(body: bytes, content_type: str) -> None:
    try:
        assert isinstance(answered(body, content_type), dict)
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize("charset", ["zip", "rot13", "idna", "punycode", "no-such", "undefined"])
def test_a_charset_that_is_none_is_not_used(charset: str) -> None:
    assert answered(b'{"a": 1}', f"application/json; charset={charset}") == {"a": 1}


def test_a_stream_is_the_answer_that_its_events_make_up() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    chunks = [
        {"id": "1", "model": "m", "choices": [{"index": 0, "delta": {"role": "assistant"}}]},
        {"choices": [{"index": 0, "delta": {"content": "Hel"}}]},
        {"choices": [{"index": 1, "delta": {"content": "another choice"}}]},
        {"choices": [{"index": 0, "delta": {"content": "lo"}, "finish_reason": "length"}]},
        {"choices": [], "usage": usage},
    ]
    lines = "".join(f": ping\r\ndata: {json.dumps(chunk)}\r\n\r\n" for chunk in chunks)
    document = answered(f"{lines}data: [DONE]\r\n\r\n".encode())
    (choice,) = document["choices"]
    assert choice["message"]["content"] == "Hello"
    assert choice["finish_reason"] == "length"
    assert (document["model"], document["usage"]) == ("m", usage)


def test_a_stream_that_was_broken_off_is_not_taken_as_whole() -> None:
    chunk = {"model": "m", "choices": [{"index": 0, "delta": {"content": "The transfer"}}]}
    with pytest.raises(BrokenOff):
        answered(f"data: {json.dumps(chunk)}\n\n".encode())


def test_counts_are_whole_and_never_below_zero() -> None:
    odd = [-1, "-1", "x", None, True, [], {}, float("nan"), float("inf"), "9" * 20]
    for count in odd:
        assert counted_in({"usage": {"prompt_tokens": count, "completion_tokens": 3}}) == {
            "output": 3
        }
    assert counted_in({"usage": {"prompt_tokens": "9", "completion_tokens": 3.2}}) == {
        "input": 9,
        "output": 4,
    }


@pytest.mark.parametrize(
    "error",
    [
        {"message": "you asked for 503 tokens, and there are 429 at most"},
        {"message": "invalid request", "code": 400},
        {"message": "the worker ran out of memory", "code": 500},
        "context too long",
        {"message": None},
        [],
    ],
)
def test_a_number_in_a_message_does_not_say_that_nothing_was_done(error: Any) -> None:
    """What is billed all the same would be bought again for nothing counted."""
    assert not is_not_there(error)
    assert not is_rate_limit(error)
