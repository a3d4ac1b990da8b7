"""Prefect with the server it starts for itself (SQLite): a flow, and a task for each node.

The clock runs inside the flow: to enter and to leave a flow takes seconds, in which the server also
catches up with what the turn before has left it, and which are not counted here.
"""

from typing import Any

import common
from prefect import flow, task
from prefect.task_runners import ThreadPoolTaskRunner


@task
def node(values: list[int]) -> int:
    return common.mixed(values)


@flow(task_runner=ThreadPoolTaskRunner(max_workers=16))  # type: ignore[arg-type]
def run(trial: common.Trial) -> None:
    trial.start()
    futures = list[Any]()
    for above in trial.parents:
        futures.append(node.submit([futures[p] for p in above]))
    trial.stop([future.result() for future in futures])


@flow
def started() -> int:
    return node([])


if __name__ == "__main__":
    trial = common.Trial()
    started()
    for _ in trial.turns:
        run(trial)
    trial.report()
