"""A worker slot's child: JSON lines in, JSON lines out, one task at a time."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from agentkit.errors import Refused
from agentkit.pool import head, sql
from agentkit.pool.lifeline import tie

_TASKS: dict[str, Callable[..., Any]] = {
    "fit": head.fit,
    "predict": head.predict,
    "query": sql.query,
}


def main() -> None:
    """Answer requests until the parent is gone."""
    lines, answers = tie(json.loads(sys.argv[1])["nice"])
    for line in lines:
        answers.write(json.dumps(_answer(json.loads(line))) + "\n")


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    task = _TASKS[request.pop("task")]
    try:
        return {"done": task(**request)}
    except Refused as no:
        return {"refused": str(no)}
    except Exception as broken:  # noqa: BLE001  (the boundary of a request)
        return {"failed": f"{type(broken).__name__}: {broken}"}


if __name__ == "__main__":
    main()
