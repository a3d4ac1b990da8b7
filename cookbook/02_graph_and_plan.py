# %% [markdown]
# # A graph with every kind of node, and its plan
#
# A job graph is data: it names no provider.  The plan says where each node would run and what it
# would cost, before anything is bought.
#
# The rows are real: what the functions of Python's own `statistics` and `shutil` say about
# themselves.  Can a model tell the two modules apart?

# %%
import inspect
import json
import shutil
import statistics
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Literal

import agentkit as ak


def sentences(module):
    for name, function in inspect.getmembers(module, inspect.isroutine):
        text = inspect.getdoc(function)
        if text and not name.startswith("_"):
            yield {"text": text.split("\n\n")[0][:200], "label": module.__name__}


rows = [*sentences(statistics), *sentences(shutil)]
source = Path(tempfile.mkdtemp()) / "rows.jsonl"
source.write_text("".join(json.dumps(row) + "\n" for row in rows))
print(len(rows), "rows, for example", rows[0])

# %% [markdown]
# Every method adds a node and returns a handle on what the node will produce.  `data` and `split`
# prepare rows, `train` fits a small classifier on embeddings, `infer` asks a model (with `over=`
# once for every row), `local` is a plain Python function that stays on this machine.


# %%
def accuracy(said: ak.Dataset) -> ak.Json:
    rows = said.rows()
    right = sum(row["said"] == row["label"] for row in rows)
    return ak.Json.dump({"rows": len(rows), "right": right})


graph = ak.JobGraph("which-module")
table = graph.data("table", source=source)
clean = graph.data(
    "clean",
    sql="select text, label from lines where length(text) > 20 order by text",
    inputs={"lines": table},
)
train, held = graph.split("parts", clean, at=0.7, seed=1)
head = graph.train("head", base="all-minilm-l6-v2", dataset=train)
said = graph.infer("said", model=head, over=held, prompt="{text}", max_tokens=4)
score = graph.local("score", accuracy, said)
wet = graph.infer(
    "wet",
    model="smollm2-135m",
    prompt="Is the sea wet? Answer yes or no.",
    output=Literal["yes", "no"],
)
frozen = graph.freeze()
print(frozen.digest)
print(graph.to_mermaid())

# %% [markdown]
# The plan: prices side by side, the worst case (`at most`), how long it would take, how many other
# providers could step in.  Gas and deposits are rows of their own.  Nothing is spent yet.

# %%
plan = ak.plan(graph, budget="0.50 USDC", deadline=timedelta(minutes=10))
print(plan)

# %%
print(plan.explain("wet"))

# %% [markdown]
# A policy narrows or orders the offers.  This one stays away from the cheaper of the two nodes.

# %%
other = ak.plan(graph, budget="0.50 USDC", policy=ak.policy.deny("native/thrifty"))
print({node.name: node.offer.label for node in other.nodes if node.offer})

# %% [markdown]
# A plan is a value: it can be saved, read elsewhere and run while its prices hold.  (This one has a
# function of a notebook cell in it, which only this process can run.)

# %%
plan.save(source.with_name("plan.json"))
assert ak.Plan.load(source.with_name("plan.json")).id == plan.id
result = ak.run(plan)
print(result[score].value, result[wet].value)
print("paid", result.paid, "of at most", plan.at_most)
