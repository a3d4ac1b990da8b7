from support.layer1_transactions import jwk, signed, wallet

__all__ = ["jwk", "signed", "wallet"]
