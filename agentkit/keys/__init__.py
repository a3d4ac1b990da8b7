"""The wallet's key: signers with named operations, the messages they sign, key files."""
