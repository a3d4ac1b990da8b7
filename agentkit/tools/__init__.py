"""agentkit for LangChain: a chat model and tools."""
