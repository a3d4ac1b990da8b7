"""A table that is redrawn in place, with the newest line under it."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from agentkit.display.text import printable


class LiveTable:
    """Rows of plain text, drawn on standard error by rich, which is imported here only."""

    def __init__(self, headings: Sequence[str]) -> None:
        from rich.console import Console
        from rich.live import Live

        self._headings = headings
        self._live = Live(console=Console(stderr=True), refresh_per_second=8)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, rows: Sequence[Sequence[str]], line: str) -> None:
        """Draw these rows, and `line` below them.

        Their text is shown as it is: a provider's error may look like rich's markup.
        """
        from rich.table import Table
        from rich.text import Text

        caption = Text(printable(line)) if line else None
        table = Table(*self._headings, box=None, pad_edge=False, caption=caption)
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        self._live.update(table)
