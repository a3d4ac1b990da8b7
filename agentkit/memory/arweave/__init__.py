"""Arweave's formats and protocol: data items, transactions, and a client of untrusted gateways."""
