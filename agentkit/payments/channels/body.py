"""What travels of a channel and its newest voucher, within what the contract takes.

A voucher that `AgentChannels.vy` would not take is worth nothing, whoever signed it.  So its fields
have the widths of the contract's types, and one form each.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from agentkit.market.value import Digest
from agentkit.payments.channels.terms import CLOSE_DELAY

MAX_CLOSE_DELAY = 30 * 24 * 60 * 60
"""The contract's MAX_DELAY, in seconds."""

MAX_AMOUNT = 2**104 - 1
"""The contract's MAX_AMOUNT: no channel holds more units."""

MAX_TASKS = 2**64 - 1
"""The largest count of tasks in a voucher, a uint64."""

Address = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{40}$")]
Signature = Annotated[str, Field(pattern=r"^([0-9a-f]{130})?$")]
Root = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]


class ChannelBody(BaseModel):
    """A payment by channel, or a message about one; `voucher` is "" where nothing was promised."""

    model_config = ConfigDict(frozen=True, strict=True)

    channel: Digest
    payer: Address
    token: Address
    close_delay: int = Field(ge=CLOSE_DELAY, le=MAX_CLOSE_DELAY)
    salt: Digest
    cumulative: int = Field(ge=0, le=MAX_AMOUNT)
    tasks: int = Field(ge=0, le=MAX_TASKS)
    root: Root = ""
    voucher: Signature
    proof: Signature = ""
