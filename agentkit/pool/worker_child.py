"""The child process of a `Worker` slot: it reads requests, does one at a time, and answers."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any

from agentkit.errors import Refused, brief
from agentkit.framing import BrokenProtocol
from agentkit.pool import head, sql
from agentkit.pool.parent_watch import bind_to_parent

_TASKS: dict[str, Callable[..., Any]] = {
    "fit": head.fit,
    "predict": head.predict,
    "query": sql.query,
}


def main() -> None:
    """Answer requests until the parent ends."""
    requests, answer = bind_to_parent(int(sys.argv[1]))
    for request in requests:
        request_id = request.pop("id")
        try:
            answer({**_do_task(request), "id": request_id})
        except BrokenProtocol as error:
            answer({"refused": f"the answer is too long: {error}", "id": request_id})


def _do_task(request: dict[str, Any]) -> dict[str, Any]:
    """Do one task and return its result, or the reason why it was refused or failed."""
    task = _TASKS[request.pop("task")]
    try:
        return {"done": task(**request)}
    except Refused as error:
        return {"refused": brief(error), "of_task": error.of_task}
    except Exception as error:  # noqa: BLE001  (the boundary of a request)
        # The traceback goes to the slot's log only: it contains paths of this machine.
        traceback.print_exc()
        return {"failed": type(error).__name__}


if __name__ == "__main__":
    main()
