"""The embedded network: chain, Arweave gateway and nodes in one process on loopback."""
