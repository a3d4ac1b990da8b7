"""A worker slot's child: numbered messages in and out, one task at a time."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any

from agentkit.errors import Refused, brief
from agentkit.framing import BrokenProtocol
from agentkit.pool import head, sql
from agentkit.pool.parent_watch import tie

_TASKS: dict[str, Callable[..., Any]] = {
    "fit": head.fit,
    "predict": head.predict,
    "query": sql.query,
}


def main() -> None:
    """Answer requests until the parent is gone."""
    requests, answer = tie(int(sys.argv[1]))
    for request in requests:
        identity = request.pop("id")
        try:
            answer({**_answer(request), "id": identity})
        except BrokenProtocol as long:
            answer({"refused": f"the answer is too long: {long}", "id": identity})


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    """Do one task and return its result, or why there is none."""
    task = _TASKS[request.pop("task")]
    try:
        return {"done": task(**request)}
    except Refused as no:
        return {"refused": brief(no), "of_task": no.of_task}
    except Exception as error:  # noqa: BLE001  (the boundary of a request)
        traceback.print_exc()  # to the slot's log: strangers need not know our paths
        return {"failed": type(error).__name__}


if __name__ == "__main__":
    main()
