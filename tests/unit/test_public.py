"""The public names, and what `import agentkit` costs."""

import ast
from pathlib import Path

import agentkit as ak

CONTRACT = (
    "JobGraph Needs Ref Agent Allowance Plan Run RunResult Receipt Money policy every"
    " plan run resume status Artifact Text Json Table Dataset Model Embedding Blob"
    " AgentKitError ConfigError GraphError PlanError ProviderError PaymentError StateError RunError"
)


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


def test_the_version_is_the_distributions() -> None:
    from importlib.metadata import version

    assert ak.__version__ == version("deai-agentkit")
