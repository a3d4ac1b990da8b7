"""x402 v2: the payer's rail, the server's paywall, and a facilitator of our own.

A payment is an EIP-3009 authorization that stands for one attempt, so presenting it again is the
same payment.  The wire stands in `market.x402`; only `facilitator` needs the x402 SDK.
"""
