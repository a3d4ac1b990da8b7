"""A facilitator of our own: it puts other people's signed payments on the chain, and pays the gas.

`service` and `app` are the facilitator, with a module for each x402 scheme that it settles;
`payments.x402.remote` speaks to any facilitator.
"""
