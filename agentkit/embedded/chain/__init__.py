"""The embedded chain: py-evm over one SQLite file, and JSON-RPC in front of it."""
