"""What a server says about a lane, as far as it can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from agentkit.errors import ProtocolBroken
from agentkit.keys.channel_messages import ChannelVoucher
from agentkit.keys.messages import Domain, recover, typed_digest
from agentkit.market.batch_settlement import ChannelState, VoucherState
from agentkit.payments.channels.contract import OnChain


@dataclass(frozen=True, slots=True)
class Stated:
    """What a server has proved: `charged` in all, under a voucher of ours over `signed`."""

    charged: int
    signed: int = 0


def stated_by(
    body: Mapping[str, Any], channel: bytes, on_chain: OnChain, *, domain: Domain, payer: str
) -> Stated:
    """Return what a server says it charged on a lane in all, in base units.

    It counts only beside the newest voucher that it has, which our own signature proves, and not
    above it.  A server that knows nothing of the channel begins with what the chain shows as
    claimed.  Raises ProtocolBroken.
    """
    if body.get("channelState") is None:
        return Stated(on_chain.total_claimed)
    try:
        state = ChannelState.model_validate(body["channelState"])
        proof = (
            VoucherState.model_validate(body["voucherState"]) if body.get("voucherState") else None
        )
    except ValidationError as error:
        raise ProtocolBroken("its state of the channel cannot be read") from error
    if bytes.fromhex(state.channel_id[2:]) != channel:
        raise ProtocolBroken("it shows the state of another channel")
    charged = max(int(state.charged_cumulative_amount or 0), on_chain.total_claimed)
    if proof is None:
        if charged > on_chain.total_claimed:
            raise ProtocolBroken("it says that it charged, and shows no voucher of ours")
        return Stated(charged)
    signed = int(proof.signed_max_claimable)
    digest = typed_digest(domain, ChannelVoucher(channel, signed))
    signer = recover(digest, bytes.fromhex(proof.signature.removeprefix("0x")))
    if signer != payer:
        raise ProtocolBroken("the voucher that it shows is not signed by this wallet")
    if charged > signed:
        raise ProtocolBroken("it says that it charged more than was promised")
    return Stated(charged, signed)
