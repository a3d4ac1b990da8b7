"""The public names, and what `import agentkit` costs."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import agentkit as ak

CONTRACT = (
    "JobGraph Needs Ref Agent Allowance Plan Run RunResult Receipt Money policy every"
    " plan run resume status Artifact Text Json Table Dataset Model Embedding Blob"
    " AgentKitError ConfigError GraphError PlanError ProviderError PaymentError StateError RunError"
)
HEAVY = ("web3", "mcp", "ray", "rich", "opentelemetry", "networkx", "langchain_core", "aiohttp")


def test_every_public_name_is_there_and_listed_once() -> None:
    assert ak.__all__ == sorted(set(ak.__all__))
    assert set(CONTRACT.split()) <= set(ak.__all__)
    for name in ak.__all__:
        assert getattr(ak, name) is not None
    assert set(ak.__all__) <= set(dir(ak))


def test_editors_and_the_interpreter_see_the_same_names() -> None:
    """The names for type checkers stand in a list of their own; neither may fall behind."""
    tree = ast.parse(Path(ak.__file__).read_text())
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    named = {
        f"{line.module}:{alias.asname}"
        for line in checked.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }
    assert named == {f"agentkit.{module}:{name}" for name, module in ak._HOME_OF.items()}


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


def test_the_version_is_the_distributions() -> None:
    from importlib.metadata import version

    assert ak.__version__ == version("deai-agentkit")
