# %% [markdown]
# # An agent that remembers
#
# What an agent knows lives in its wallet's journal: durable when a call returns, sealed on Arweave,
# and back on any machine from the wallet's key.  This notebook writes in one process and reads in
# another.

# %%
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

from langchain_core.messages import HumanMessage

import agentkit as ak
from agentkit.tools import AgentKitChatHistory, ChatAgentKit

graph = ak.JobGraph("slogan")
slogan = graph.infer("slogan", model="smollm2-135m", prompt="A slogan for bees:", max_tokens=16)

# %% [markdown]
# A fact remembers which run, node and price it is from, and can be traced to its receipt.

# %%
async with ak.Agent.from_config() as agent:
    result = await agent.run(graph, budget="0.01 USDC")
    receipt = result.receipts[-1]
    await agent.memory.remember("slogan", result[slogan].text.strip(), receipt=receipt)
    await agent.memory.note("findings", "bees like slogans about honey")
    await agent.memory.note("findings", "wasps were not asked")

    known = await agent.memory.recall("slogan")
    print(known.value, "- from", known.run, known.node, "- paid", known.price)
    assert await agent.memory.receipts_of(known) == [receipt]

# %% [markdown]
# Another process, later: the same wallet knows the same.  Looking for words costs nothing; with
# `embed=AgentKitEmbeddings(...)` texts are compared by meaning, each paid for once.

# %%
later = """
import asyncio
import agentkit as ak

async def main():
    async with ak.Agent.from_config() as agent:
        print((await agent.memory.recall("slogan")).value)
        for match in await agent.memory.search("honey bees", k=1):
            print(match.text)

asyncio.run(main())
"""
script = Path(tempfile.mkdtemp()) / "later.py"
script.write_text(later)
told = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
print(told.stdout)
assert "bees like slogans about honey" in told.stdout
assert known.value in told.stdout

# %% [markdown]
# Memory is bounded by rules that are events too, so a restored agent keeps exactly the same.  To
# forget is to write a tombstone: the fact is gone here and after every restore; what was sealed
# before stays sealed, because Arweave cannot forget.

# %%
async with ak.Agent.from_config() as agent:
    await agent.memory.retain(topic="findings", newest=1)
    await agent.memory.retain(topic="moods", within=timedelta(days=1))
    print([note.text for note in await agent.memory.notes("findings")])
    await agent.memory.forget("slogan")
    assert await agent.memory.recall("slogan") is None

    # The same memory under a conversation of LangChain, which survives the process as well.
    history = AgentKitChatHistory("bees", newest=20, agent=agent)
    await history.aadd_messages([HumanMessage("What do bees make?")])
    model = ChatAgentKit(model="smollm2-135m", max_tokens=16, agent=agent)
    await history.aadd_messages([await model.ainvoke(await history.aget_messages())])
    for message in await history.aget_messages():
        print(f"{message.type}: {message.text}")
