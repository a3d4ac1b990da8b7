"""A signer that signs for the chains of the settings, and for no other."""

from __future__ import annotations

from collections.abc import Collection

from agentkit.errors import NotAllowed
from agentkit.keys.channel_messages import ChannelVoucher, ClaimBatch, Order, Refund
from agentkit.keys.messages import (
    Accept,
    Delivery,
    Domain,
    ItemMessage,
    Quote,
    ReceiveAuthorization,
    Release,
    TransferAuthorization,
    UnsignedTransaction,
    Voucher,
)
from agentkit.keys.permit2_messages import UptoPermit
from agentkit.keys.signer import Signer
from agentkit.keys.statement_messages import OfferStatement, ReceiptStatement


class BoundedSigner:
    """Hands to another signer what is for one of `chains`, by EIP-155 id; see `Signer`.

    A message for another chain raises NotAllowed.  The same key has the same address on every
    chain, so a signature for a chain that nobody named could move money there.
    """

    def __init__(self, signer: Signer, chains: Collection[int]) -> None:
        self._signer = signer
        self._chains = frozenset(chains)

    def __repr__(self) -> str:
        return f"BoundedSigner({self.address}, {sorted(self._chains)})"

    def __reduce__(self) -> str:
        raise TypeError("a signer cannot be pickled")

    @property
    def address(self) -> str:
        return self._signer.address

    @property
    def public_key(self) -> bytes:
        return self._signer.public_key

    def sign_voucher(self, domain: Domain, voucher: Voucher) -> bytes:
        return self._signer.sign_voucher(self._known(domain), voucher)

    def sign_release(self, domain: Domain, release: Release) -> bytes:
        return self._signer.sign_release(self._known(domain), release)

    def sign_quote(self, domain: Domain, quote: Quote) -> bytes:
        return self._signer.sign_quote(self._known(domain), quote)

    def sign_accept(self, domain: Domain, accept: Accept) -> bytes:
        return self._signer.sign_accept(self._known(domain), accept)

    def sign_authorization(self, domain: Domain, authorization: ReceiveAuthorization) -> bytes:
        return self._signer.sign_authorization(self._known(domain), authorization)

    def sign_delivery(self, domain: Domain, delivery: Delivery) -> bytes:
        return self._signer.sign_delivery(self._known(domain), delivery)

    def sign_transfer(self, domain: Domain, transfer: TransferAuthorization) -> bytes:
        return self._signer.sign_transfer(self._known(domain), transfer)

    def sign_channel_voucher(self, domain: Domain, voucher: ChannelVoucher) -> bytes:
        return self._signer.sign_channel_voucher(self._known(domain), voucher)

    def sign_refund(self, domain: Domain, refund: Refund) -> bytes:
        return self._signer.sign_refund(self._known(domain), refund)

    def sign_claims(self, domain: Domain, claims: ClaimBatch) -> bytes:
        return self._signer.sign_claims(self._known(domain), claims)

    def sign_order(self, domain: Domain, order: Order) -> bytes:
        return self._signer.sign_order(self._known(domain), order)

    def sign_upto(self, domain: Domain, permit: UptoPermit) -> bytes:
        return self._signer.sign_upto(self._known(domain), permit)

    def sign_offer(self, domain: Domain, offer: OfferStatement) -> bytes:
        # Statements move no money, and the standard has one domain for all chains.
        return self._signer.sign_offer(domain, offer)

    def sign_receipt(self, domain: Domain, receipt: ReceiptStatement) -> bytes:
        return self._signer.sign_receipt(domain, receipt)

    def sign_tx(self, transaction: UnsignedTransaction) -> tuple[str, bytes]:
        self._check(transaction.chain_id)
        return self._signer.sign_tx(transaction)

    def sign_item(self, item: ItemMessage) -> bytes:
        return self._signer.sign_item(item)

    def derive(self, info: str) -> bytes:
        return self._signer.derive(info)

    # -- inside ----------------------------------------------------------------------------------

    def _known(self, domain: Domain) -> Domain:
        self._check(domain.chain_id)
        return domain

    def _check(self, chain_id: int) -> None:
        """Raise NotAllowed for a chain that is not in the settings."""
        if chain_id not in self._chains:
            raise NotAllowed(
                f"nothing is signed for chain {chain_id}: it is not in the settings",
                hint=f"describe the network of chain {chain_id} under [networks.NAME] in"
                " agentkit.toml, if the wallet may pay there",
            )
