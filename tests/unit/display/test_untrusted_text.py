"""What providers, folders and files write cannot act on the terminal that shows it."""

from __future__ import annotations

import io
import sys

import pytest
import typer

from agentkit.cli import output
from agentkit.display.live import LiveTable
from agentkit.display.text import printable
from agentkit.errors import BadOutput
from agentkit.money import Money
from agentkit.runtime import approve

PAINTED = "spend 9 USDC\r\x1b[2K\x1b]0;title\x07\x9b2J\u202espend 1 USDC"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def has_controls(text: str) -> bool:
    return not text.replace("\n", "").replace("\t", "").isprintable()


def test_control_characters_are_written_out_and_text_stays() -> None:
    assert printable("a\r\nb\tç 日本 🙂") == "a\r\nb\tç 日本 🙂"
    assert printable("\x1b[2J\r") == r"\x1b[2J\r"
    assert not has_controls(printable(PAINTED))


def test_a_terminal_is_not_painted_over(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    output.result(None, PAINTED, as_json=False)
    with pytest.raises(typer.Exit):
        output.fail(BadOutput(PAINTED), as_json=False)
    for shown in (out.getvalue(), err.getvalue()):
        assert "spend 9 USDC" in shown
        assert not has_controls(shown)


def test_a_pipe_gets_an_answer_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    output.result(None, PAINTED, as_json=False)
    assert out.getvalue() == f"{PAINTED}\n"


async def test_the_question_about_money_cannot_be_painted_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(sys, "stdin", Terminal("no\n"))
    question = approve.Question(
        run="r", graph="g", node="n", kind="infer", provider=PAINTED, amount=Money.parse("9 USDC")
    )
    agreed = await approve.console().agreed(question)
    assert not agreed
    assert "spend 9 USDC" in err.getvalue()
    assert not has_controls(err.getvalue())


def test_an_error_that_looks_like_markup_does_not_end_a_run_that_is_watched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Models write [/INST]: rich took it for the end of a style, and raised."""
    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)
    with LiveTable(("node", "where")) as table:
        table.show([["[/b]", "[red]x"]], f"refused: [/INST] {PAINTED}")
    assert "[/INST]" in err.getvalue()
    assert "[red]x" in err.getvalue()
    assert "\x1b]0;title" not in err.getvalue()
