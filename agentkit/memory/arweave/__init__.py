"""Arweave as it is spoken: items, transactions, gateways that nobody has to trust."""
