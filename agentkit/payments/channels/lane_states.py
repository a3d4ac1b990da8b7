"""What a server says about a lane, as far as it can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from agentkit.errors import ProtocolBroken
from agentkit.journal import records as r
from agentkit.keys.channel_messages import ChannelVoucher
from agentkit.keys.messages import Domain, recover, typed_digest
from agentkit.market.batch_settlement import ChannelState, VoucherState
from agentkit.market.chain import ChainClient
from agentkit.payments.channels import contract


async def stated_by(
    body: Mapping[str, Any], lane: r.Lane, chain: ChainClient, *, domain: Domain, payer: str
) -> int:
    """Return what a server says it charged on a lane in all, in base units.

    It counts only beside the newest voucher that it has, which our own signature proves, and not
    above it.  A server that knows nothing of the channel begins with what the chain shows as
    claimed.  Raises ProtocolBroken, StoreUnavailable.
    """
    channel = bytes.fromhex(lane.channel)
    if body.get("channelState") is None:
        return (await contract.channel_on(chain, channel)).total_claimed
    try:
        state = ChannelState.model_validate(body["channelState"])
        proof = (
            VoucherState.model_validate(body["voucherState"]) if body.get("voucherState") else None
        )
    except ValidationError as error:
        raise ProtocolBroken("its state of the channel cannot be read") from error
    if state.channel_id.lower() != "0x" + lane.channel:
        raise ProtocolBroken("it shows the state of another channel")
    charged = int(state.charged_cumulative_amount or 0)
    if proof is None:
        claimed = (await contract.channel_on(chain, channel)).total_claimed
        if charged > claimed:
            raise ProtocolBroken("it says that it charged, and shows no voucher of ours")
        return claimed
    signed = int(proof.signed_max_claimable)
    digest = typed_digest(domain, ChannelVoucher(channel, signed))
    signer = recover(digest, bytes.fromhex(proof.signature.removeprefix("0x")))
    if signer != payer:
        raise ProtocolBroken("the voucher that it shows is not signed by this wallet")
    if charged > signed:
        raise ProtocolBroken("it says that it charged more than was promised")
    return charged
