"""A process to be killed: starts a run in a folder, or resumes the one that is there.

python child.py FOLDER          prints the run id and `done` when it got that far
"""

import asyncio
import json
import sys
from pathlib import Path

from support import toy

from agentkit.artifacts import Dataset
from agentkit.graph.builder import JobGraph
from agentkit.runtime import run as runs
from agentkit.testing.fakes import FakeProvider

ROWS = 40


def count(rows: Dataset) -> int:
    with Path(sys.argv[1], "counted.log").open("a") as log:
        log.write("x")
    return len(rows.rows())


def graph(folder: Path) -> JobGraph:
    rows = [{"n": n, "text": f"row {n}"} for n in range(ROWS)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = JobGraph("killed")
    source = job.data("rows", source="rows.jsonl")
    labels = job.infer("label", model="m", over=source, prompt="{text}")
    one, other = job.split("parts", labels, at=0.5)
    job.train("tune", base="b", dataset=one)
    job.infer("check", model="m", over=other, prompt="{label}")
    job.local("count", count, job.ref("check"))
    return job


async def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    providers = {
        "one": FakeProvider("one", folder / "one", delay=0.01, lanes=8),
        "two": FakeProvider("two", folder / "two", delay=0.01, factor=2),
    }
    async with toy(folder, **providers) as market:
        known = folder / "run"
        if known.exists():
            run = await runs.resume(market.means, known.read_text())
        else:
            run = await runs.start(market.means, await market.plan(graph(folder)))
            known.write_text(run.id)
        result = await run.result()
        print("done", result.paid.units, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
