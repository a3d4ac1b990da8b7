"""What somebody who waits for bytes gets to see."""

from __future__ import annotations

import io

from agentkit.display.progress import show_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_few_lines() -> None:
    log = io.StringIO()
    show = show_progress("fetching", log)
    show("model", 0, 0)
    for received in range(1, 100):
        show("model", received << 20, 100 << 20)
    show("model", 100 << 20, 100 << 20)
    assert log.getvalue().splitlines() == [
        "fetching model (once; it stays on this machine)",
        "fetching model: done",
    ]


def test_a_terminal_gets_one_line_that_is_redrawn() -> None:
    terminal = Terminal()
    show = show_progress("fetching", terminal)
    show("model", 0, 0)
    show("model", 100 << 20, 100 << 20)
    assert terminal.getvalue().count("\n") == 1
    assert terminal.getvalue().endswith("\n")
    assert "model: done" in terminal.getvalue()
