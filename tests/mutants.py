"""Change money.py and payments/budget.py in one place at a time: does a test notice?

    make mutants

mutmut makes the mutants and runs the unit tests of the two modules for each (`[tool.mutmut]` in
`pyproject.toml`).  Those that only change a text are left out: what a message says is not money.
Printed are the share that tests noticed, and every mutant that they did not.  Exits with 1 below
the floor.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MODULES = ("agentkit/money.py", "agentkit/payments/budget.py")
FOLDER = Path("mutants")
FLOOR = 0.95
SURVIVED = 0
NO_TESTS = 33

Function = ast.FunctionDef | ast.AsyncFunctionDef


class _WithoutTexts(ast.NodeTransformer):
    """Blanks every text, so that functions which differ only in texts become equal."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant("") if isinstance(node.value, str) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return ast.Constant("")


def shape_of(function: Function) -> str:
    """Return what a function does, without its name and its texts."""
    blank = _WithoutTexts().visit(ast.parse(ast.unparse(function)))
    return "\n".join(ast.dump(statement) for statement in blank.body[0].body)


def changed_lines(original: Function, mutant: Function) -> str:
    """Return the lines of a mutant that its original does not have."""
    before = ast.unparse(original).splitlines()
    return " | ".join(
        line.strip() for line in ast.unparse(mutant).splitlines()[1:] if line not in before
    )


def outcomes(module: str) -> Iterator[tuple[str, int, str]]:
    """Yield name, exit code of the tests, and changed lines of each mutant that counts."""
    source = (FOLDER / module).read_text()
    functions = {
        node.name: node for node in ast.walk(ast.parse(source)) if isinstance(node, Function)
    }
    codes = json.loads((FOLDER / f"{module}.meta").read_text())["exit_code_by_key"]
    for key, code in codes.items():
        name = key.rpartition(".")[2]
        original = functions[f"{name.rpartition('__mutmut_')[0]}__mutmut_orig"]
        mutant = functions[name]
        if shape_of(original) != shape_of(mutant):
            yield name, code, changed_lines(original, mutant)


def main() -> int:
    subprocess.run([str(Path(sys.executable).parent / "mutmut"), "run"], check=False)
    mutants = [mutant for module in MODULES for mutant in outcomes(module)]
    alive = [mutant for mutant in mutants if mutant[1] in (SURVIVED, NO_TESTS, None)]
    for name, _, lines in alive:
        print(f"not noticed: {name}: {lines}")
    share = 1 - len(alive) / len(mutants)
    print(
        f"{len(mutants)} mutants, {len(alive)} not noticed: {share:.1%} killed (floor {FLOOR:.0%})"
    )
    return 0 if share >= FLOOR else 1


if __name__ == "__main__":
    sys.exit(main())
