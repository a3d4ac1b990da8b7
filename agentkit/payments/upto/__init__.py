"""x402 `upto`: a payer signs a most, and one transfer through Permit2 takes what was used.

`contract` speaks to Permit2 and the proxy, `seller` sells by the scheme, `rail` pays by it.
"""
