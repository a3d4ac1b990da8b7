"""The adapter for OpenAI-compatible endpoints; one module for each noun."""

from agentkit.providers.openai.adapter import MAX_ANSWER as MAX_ANSWER
from agentkit.providers.openai.adapter import OpenAI as OpenAI
from agentkit.providers.openai.error_bodies import message_of as message_of
from agentkit.providers.openai.profile import GAIA as GAIA
from agentkit.providers.openai.profile import HYPERBOLIC as HYPERBOLIC
from agentkit.providers.openai.profile import Profile as Profile
from agentkit.providers.openai.settings import EndpointSettings as EndpointSettings
from agentkit.providers.openai.settings import check_prices as check_prices
from agentkit.providers.openai.terms import PaymentTerms as PaymentTerms
