# %% [markdown]
# # Hello
#
# One question to a model, with its price known beforehand and its receipt afterwards.
#
# Nothing has to be configured.  With no network set, agentkit starts the *embedded network*: a
# process on this machine with a real chain, a real model and a real Arweave gateway.  Its money is
# test money.

# %%
import agentkit as ak

graph = ak.JobGraph("hello")
greet = graph.infer("greet", model="smollm2-135m", prompt="Define blockchain in one sentence.")
result = ak.run(graph, budget="0.05 USDC")
print(result[greet].text, "- paid", result.paid)

# %% [markdown]
# A receipt says what was bought, from whom, and that it was paid once.

# %%
for receipt in result.receipts:
    who = f"{receipt.attempt.provider}/{receipt.attempt.provider_node}"
    print(receipt.attempt.node, "·", who, "·", receipt.amount, "·", receipt.standing)

# %% [markdown]
# A budget that is too small is refused before anything is spent.  Every error has a hint.

# %%
try:
    ak.run(graph, budget="0.000001 USDC")
except ak.PlanError as refused:
    print(refused)
    print("hint:", refused.hint)
