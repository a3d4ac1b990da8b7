"""Artifact stores: this machine, Arweave, IPFS, and the sources of data nodes."""
