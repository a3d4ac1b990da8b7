"""The reference: plain asyncio + graphlib, a task for each node awaiting an async no-op."""

import asyncio

import common


async def no_op(values: list[int]) -> int:
    return common.mixed(values)


async def main(trial: common.Trial) -> None:
    for _ in trial.turns:
        order = common.sorter(trial.parents)
        trial.start()
        trial.stop(await common.walk(order, trial.parents, no_op))


if __name__ == "__main__":
    trial = common.Trial()
    asyncio.run(main(trial))
    trial.report()
