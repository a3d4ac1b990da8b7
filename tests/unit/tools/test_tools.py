"""The LangChain chat model and tools: what they spend, and on which loop they run."""

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage


def test_a_conversation_keeps_its_speakers() -> None:
    from agentkit.tools.chat import as_prompt

    talk = [
        SystemMessage("Be brief."),
        HumanMessage("Hi {name}"),
        AIMessage("Hello"),
        HumanMessage("?"),
    ]
    assert (
        as_prompt(talk)
        == "System: Be brief.\nUser: Hi {name}\nAssistant: Hello\nUser: ?\nAssistant:"
    )
    assert as_prompt(talk[1:2]) == "Hi {name}"
