# %% [markdown]
# # A run you control
#
# Results that are checked before they are paid, a node that is done only if it is needed, somebody
# who is asked before money is spent, and a second run that pays for nothing twice.

# %%
import agentkit as ak


def words(text: ak.Text) -> ak.Json:
    return ak.Json.dump({"words": len(text.text.split())})


# A part that is used twice below: an answer that two provider nodes must agree on, and its length.
part = ak.JobGraph("part")
asked = part.infer(
    "ask",
    model="smollm2-135m",
    prompt="Name one use of permanent storage.",
    max_tokens=24,
    verify=[ak.verify.redundant(2, of=2), lambda answer: len(answer.text) > 3],
    cache=True,
)
counted = part.local("count", words, asked)

graph = ak.JobGraph("controlled")
sub = graph.include(part, prefix="first.")
graph.infer(
    "longer",
    model="smollm2-135m",
    prompt="Say more about this: {answer}",
    inputs={"answer": sub[asked]},
    when=sub[counted].below(5, key="words"),
    approve=True,
    max_tokens=24,
)

# %% [markdown]
# Redundancy is in the price: two purchases, each at another provider node.

# %%
native = ak.policy.allow("native")
plan = ak.plan(graph, budget="0.05 USDC", policy=native)
print(plan)

# %% [markdown]
# Whoever is asked sees what it may cost; no answer is a no, and a no is a pause.


# %%
def agree(question):
    print(question)
    return True


result = ak.run(plan, approve=ak.approve.callback(agree))
print(result[sub[asked]].text)
print("skipped:", dict(result.skipped))
print("paid", result.paid, "to", [receipt.attempt.provider_node for receipt in result.receipts])

# %% [markdown]
# The same part again, in another graph: its answer is taken from the journal and costs nothing.

# %%
again = ak.JobGraph("again")
second = again.include(part)
free = ak.run(again, budget="0.05 USDC", policy=native)
assert free[second[asked]] == result[sub[asked]]
assert not free.paid
print("paid", free.paid)
