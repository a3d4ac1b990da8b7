# %% [markdown]
# # Pull the plug, and go on
#
# A run lives in its journal, not in a process.  Here a child process runs a plan and is killed with
# `SIGKILL`, as a power cut would; then this process goes on where the journal stands.  What was
# finished is not done again, and what was paid is not paid again.

# %%
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import agentkit as ak

folder = Path(tempfile.mkdtemp())
names = sorted(sys.stdlib_module_names)[:400:20]
rows = [{"name": name} for name in names if not name.startswith("_")]
(folder / "names.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

graph = ak.JobGraph("guesses")
table = graph.data("table", source=folder / "names.jsonl")
guess = graph.infer(
    "guess",
    model="smollm2-135m",
    over=table,
    prompt="What may a Python module called {name} be for? One sentence.",
    max_tokens=40,
)
plan = ak.plan(graph, budget="0.20 USDC")
plan.save(folder / "plan.json")
print(plan)

# %% [markdown]
# A child starts it.  As soon as a few of the items are bought, the child is killed.

# %%
before = {run.run for run in ak.status()}
command = [sys.executable, "-m", "agentkit", "run", str(folder / "plan.json"), "--quiet"]
child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def new_run():
    return next((run.run for run in ak.status() if run.run not in before), None)


def bought(run_id):
    return len(ak.status(run_id).items.get("guess", {}))


while (run_id := new_run()) is None or bought(run_id) < 3:
    assert child.poll() is None, "the child ended before it could be killed"
    time.sleep(0.02)
os.kill(child.pid, signal.SIGKILL)
assert child.wait() == -signal.SIGKILL
state = ak.status(run_id)
print(f"killed after {bought(run_id)} of {len(rows)} items; no process has the run now")

# %% [markdown]
# Going on takes the run's id and nothing else.  The same can be typed: `agentkit resume RUN`.

# %%
survived = set(state.items["guess"])
result = ak.resume(run_id)
for row in result[guess].rows()[:3]:
    print(f"{row['name']}: {row['guess']}")

# %% [markdown]
# Every item was paid once: as many receipts as items, and none for the same purchase twice.

# %%
paid = Counter(receipt.attempt.purchase for receipt in result.receipts)
assert len(paid) == len(rows)
assert set(paid.values()) == {1}
assert survived <= {receipt.attempt.item for receipt in result.receipts}
print(f"{len(paid)} items, {len(result.receipts)} receipts, paid {result.paid}")
