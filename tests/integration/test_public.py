"""The public names, and what `import agentkit` costs."""

import json
import subprocess
import sys

HEAVY = ("web3", "mcp", "ray", "rich", "opentelemetry", "networkx", "langchain_core", "aiohttp")


def test_importing_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import json, sys, time; started = time.perf_counter(); import agentkit;"
        "took = time.perf_counter() - started;"
        f"print(json.dumps([took, [name for name in {HEAVY!r} if name in sys.modules]]))"
    )
    measured = [
        json.loads(
            subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
        )
        for _ in range(3)
    ]
    assert all(loaded == [] for _, loaded in measured)
    assert min(took for took, _ in measured) < 0.5


def test_building_a_graph_loads_nothing_heavy_either() -> None:
    code = (
        "import sys, agentkit as ak; graph = ak.JobGraph('g');"
        "graph.infer('a', model='m', prompt='p'); graph.freeze().digest;"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert told.stdout.strip() == "[]"
