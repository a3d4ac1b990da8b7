from support.signer_messages import here

__all__ = ["here"]
