"""The identity of a graph: what a run in flight is known by, and what it may go on with."""

import os
import subprocess
import sys
from pathlib import Path

from support.timing import limit


def test_the_digest_of_a_file_is_the_same_in_every_process(tmp_path: Path) -> None:
    """A plan made in one process must be that of the run in the next."""
    names = [f"n{number}" for number in range(8)]
    rows = [f'[[nodes]]\nkind="data"\nop="source"\nname="{n}"\nsource="x"\n' for n in names]
    inputs = ",".join(f'{n}={{node="{n}"}}' for n in names)
    late = f'[[nodes]]\nkind="data"\nop="sql"\nname="late"\nsql="s"\ninputs={{{inputs}}}\n'
    (tmp_path / "g.toml").write_text('name="g"\n' + "".join([late, *rows]))
    code = (
        "import sys; from agentkit.graph.builder import JobGraph;"
        "g = JobGraph.load(sys.argv[1]).freeze(); print(g.digest, [n.name for n in g.nodes])"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "g.toml")],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            timeout=limit(60),
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(told) == 1
