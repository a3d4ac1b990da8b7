"""DBOS on SQLite: the run is one workflow, every node an async step whose result is stored."""

import asyncio

import common
from dbos import DBOS

TRIAL = common.Trial()


@DBOS.step()
async def node(values: list[int]) -> int:
    return common.mixed(values)


@DBOS.workflow()
async def run() -> list[int]:
    return await common.walk(common.sorter(TRIAL.parents), TRIAL.parents, node)


async def main() -> None:
    for _ in TRIAL.turns:
        TRIAL.start()
        handle = await DBOS.start_workflow_async(run)
        TRIAL.stop(await handle.get_result())


if __name__ == "__main__":
    DBOS(
        config={
            "name": "peer",
            "system_database_url": f"sqlite:///{TRIAL.home}/dbos.sqlite",
            "log_level": "ERROR",
        }
    )
    DBOS.launch()
    asyncio.run(main())
    TRIAL.report()
