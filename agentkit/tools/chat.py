"""A LangChain chat model: each call plans and runs a graph of one node, and has a receipt."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any, ClassVar, Literal, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from agentkit.agent import Agent
from agentkit.errors import WrongInput
from agentkit.graph.builder import JobGraph
from agentkit.graph.schemas import without_null_defaults
from agentkit.market.plan import Plan
from agentkit.planner.policy import Choose, Policy, name_of
from agentkit.runtime.result import RunResult
from agentkit.tools.agent_loop import acall, call
from agentkit.tools.chat_messages import to_ai_message, to_chat_messages, to_chunk
from agentkit.tools.chat_options import check_known, infer_keywords, stops, tool_choice_of
from agentkit.tools.chat_options import tool_documents as documents_of
from agentkit.tools.spending_limit import SpendingLimit
from agentkit.user_values import UserValue

NODE = "chat"

METHODS = ("function_calling", "json_schema", "json_mode")
"""The ways to structured output."""

DEFAULTS = ("model", "max_tokens", "temperature", "stop", "seed", "top_p", "timeout", "max_retries")
"""The fields that are options of every call, unless the call has others."""


class ChatAgentKit(BaseChatModel, UserValue):
    """Asks a model at the cheapest provider that offers it, and pays for each answer.

    `budget` is the limit for all calls of this object together.  Without `agent` the default agent
    is used.  `timeout` is in seconds for one try, and `max_retries` counts further tries after
    failures that cost nothing.  The receipt of an answer is in `response_metadata["agentkit"]`.
    Raises OverBudget before a call that could exceed the budget, WrongInput for an option or a
    message that cannot be sent, and what planning and running raise.

    A deep copy uses the same agent.  A pickled one uses the default agent where it is loaded again.
    Both have the same budget, of which they have spent nothing yet; a shallow copy (`model_copy`)
    shares the budget of its original.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")
    error_class: ClassVar = WrongInput

    model: str
    budget: str = "1 USDC"
    policy: Choose | None = Field(default=None, exclude=True)
    agent: Agent | None = Field(default=None, exclude=True)
    max_tokens: int = 256
    temperature: float = 0.0
    stop: list[str] | str | None = None
    seed: int | None = None
    top_p: float | None = None
    timeout: float | None = None
    max_retries: int | None = None
    streaming: bool = False
    """LangChain's switch for models that stream; these answers come whole."""

    _spending_limit: SpendingLimit = PrivateAttr()

    @model_validator(mode="before")
    @classmethod
    def _with_other_names(cls, given: Any) -> Any:
        """Take `max_completion_tokens`, OpenAI's newer name of `max_tokens`."""
        if isinstance(given, dict) and "max_completion_tokens" in given:
            given = dict(given)
            given["max_tokens"] = given.pop("max_completion_tokens")
        return given

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._spending_limit = SpendingLimit(self.budget)

    # -- copies ----------------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return a copy with a budget of its own; it uses the same agent."""
        memo = {} if memo is None else memo
        memo[id(self.agent)] = self.agent
        return super().__deepcopy__(memo)

    def __getstate__(self) -> dict[Any, Any]:
        """Return what is pickled: all but the agent, which has open files and a loop of its own."""
        if isinstance(self.policy, Policy):
            raise WrongInput(
                f"a chat model with the policy {self.policy} cannot be pickled",
                hint="make one with that policy where it is loaded again",
            )
        state = super().__getstate__()
        return {**state, "__dict__": {**state["__dict__"], "agent": None}}

    # -- what LangChain asks ---------------------------------------------------------------------

    @property
    def _llm_type(self) -> str:
        return "agentkit"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """Return all that changes an answer."""
        return {
            "model": self.model,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "stop": list(stops(self.stop)),
            "seed": self.seed,
            "top_p": self.top_p,
            "policy": name_of(self.policy) if self.policy else None,
        }

    def _get_invocation_params(
        self, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Return what a call asks for, by which traces show it.

        LangChain's own would say that a call without `stop` has none, whatever the model has.
        """
        return {**self.asdict(), **self._keywords(stop, kwargs)}

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        """Return the text by which caches tell calls apart: tools count as they are sent."""
        return str(sorted(self._get_invocation_params(stop, **kwargs).items()))

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        """Return the parameters under which LangSmith files a call."""
        if "max_completion_tokens" in kwargs:
            kwargs = {"max_tokens": kwargs["max_completion_tokens"], **kwargs}
        ends = stops(self.stop if stop is None else stop)
        params = super()._get_ls_params(stop=list(ends), **kwargs)
        params["ls_provider"] = "agentkit"
        return params

    # -- tools and structured output -------------------------------------------------------------

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: dict[str, Any] | str | bool | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return this model with tools that it may call; no tools at all bind none.

        `tool_choice` is `auto`, `none`, `required` (also `any` or True), or the name of a tool.
        `kwargs` are further options of the calls.  Raises WrongInput.
        """
        if strict:
            raise WrongInput(
                "strict=True is not supported: no provider is told to hold arguments to a schema",
                hint="leave strict out, and check the arguments before you call the tool",
            )
        check_known(kwargs)
        documents = documents_of(tools)
        choice = tool_choice_of(tool_choice, documents)
        if documents:
            kwargs["tools"] = documents
        if choice is not None:
            kwargs["tool_choice"] = choice
        return self.bind(**kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: Literal["function_calling", "json_schema", "json_mode"] = "function_calling",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Return this model with answers of a schema: a pydantic model, TypedDict or JSON schema.

        `function_calling` has the model call a tool with such arguments.  `json_schema` has the
        provider hold the answer to the schema, which native nodes do and chat endpoints do not.
        `json_mode` is the same here: who can be held to JSON can be held to the schema.  `strict`
        is taken as other models take it and changes nothing: `json_schema` is always strict.
        """
        if kwargs:
            name = next(iter(kwargs))
            raise WrongInput(
                f"with_structured_output takes no {name!r}",
                hint="write one of: include_raw, method, strict",
            )
        if method not in METHODS:
            raise WrongInput(
                f"{method!r} is not a method of structured output",
                hint=f"write one of: {', '.join(METHODS)}",
            )
        if method == "function_calling":
            return super().with_structured_output(schema, include_raw=include_raw)

        wanted = _response_format(schema)
        tracing = {"kwargs": {"method": method}, "schema": schema}
        asked = self.bind(response_format=wanted, ls_structured_output_format=tracing)
        parser = _parser_of(schema)
        return _with_raw(asked, parser) if include_raw else asked | parser

    # -- answers ---------------------------------------------------------------------------------

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        """Buy one answer; blocks.  LangChain's `run_manager` is not used."""
        graph = self._graph(messages, stop, **kwargs)
        return call(self.agent, lambda agent: self._ask(agent, graph))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        """Buy one answer, as `_generate` does, without blocking."""
        graph = self._graph(messages, stop, **kwargs)
        return await acall(self.agent, lambda agent: self._ask(agent, graph))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        """Buy one answer and give it as one chunk: an answer is checked before it is shown."""
        (generation,) = self._generate(messages, stop, run_manager, **kwargs).generations
        yield ChatGenerationChunk(message=to_chunk(generation.message))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        """Buy one answer and give it as one chunk, as `_stream` does, without blocking."""
        result = await self._agenerate(messages, stop, run_manager, **kwargs)
        (generation,) = result.generations
        yield ChatGenerationChunk(message=to_chunk(generation.message))

    def _graph(
        self, messages: Sequence[BaseMessage], stop: list[str] | None = None, **options: Any
    ) -> JobGraph:
        """Return the graph of one call; raises WrongInput for what cannot be sent."""
        graph = JobGraph("chat")
        keywords = self._keywords(stop, options)
        graph.infer(NODE, messages=to_chat_messages(messages), **keywords)
        return graph

    def _keywords(self, stop: list[str] | None, options: dict[str, Any]) -> dict[str, Any]:
        """Return the keywords of `infer` for one call; raises WrongInput."""
        defaults = {name: getattr(self, name) for name in DEFAULTS}
        return infer_keywords(defaults, {**options, "stop": stop})

    async def _ask(self, agent: Agent, graph: JobGraph) -> ChatResult:
        """Plan and run a graph within the budget, and return its answer."""
        plan = await agent.plan(graph, policy=self.policy, balance=False)
        with self._spending_limit.holding(plan) as spent:
            result = await agent.run(plan)
            spent.append(result)
        return _chat_result(result, plan)


def _chat_result(result: RunResult, plan: Plan) -> ChatResult:
    """Return an answer in LangChain's form, with its price and receipt in the metadata."""
    receipt = result.receipt(NODE)
    tokens_in = receipt.usage.get("input", 0)
    tokens_out = receipt.usage.get("output", 0)
    offer = plan.node(NODE).offer
    message = to_ai_message(
        result[NODE],
        response_metadata={
            "model_name": receipt.model or (offer.model if offer else ""),
            "finish_reason": receipt.finish_reason,
            "agentkit": {
                "run": result.run_id,
                "provider": receipt.attempt.provider,
                "paid": str(result.paid),
                "standing": receipt.standing,
                "receipt": receipt.model_dump(mode="json"),
            },
        },
        usage_metadata={
            "input_tokens": tokens_in,
            "output_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
        },
    )
    return ChatResult(generations=[ChatGeneration(message=message)])


# -- structured output ---------------------------------------------------------------------------


def _response_format(schema: Any) -> dict[str, Any]:
    """Return what asks for answers of a schema, in OpenAI's form; raises WrongInput."""
    try:
        made = without_null_defaults(convert_to_json_schema(schema))
    except (TypeError, ValueError) as error:
        raise WrongInput(
            f"{repr(schema)[:80]} is not a schema: {error}",
            hint="pass a pydantic model, a TypedDict, or a JSON schema with a title",
        ) from error
    return {
        "type": "json_schema",
        "json_schema": {"name": made.get("title", "answer"), "schema": made},
    }


def _parser_of(schema: Any) -> Runnable[AIMessage, Any]:
    """Return what reads an answer: as the pydantic model, or else as plain JSON."""
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        return PydanticOutputParser(pydantic_object=schema)
    return JsonOutputParser()


def _with_raw(
    asked: Runnable[LanguageModelInput, AIMessage], parser: Runnable[AIMessage, Any]
) -> Runnable[LanguageModelInput, dict[str, Any]]:
    """Return a runnable that gives `raw`, `parsed` and `parsing_error`, as LangChain's own does."""
    parsed = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
    )
    unparsed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=asked) | parsed.with_fallbacks([unparsed], exception_key="parsing_error")
