"""Escrow: the price of one task locked in a contract; the payer's rail and the provider's book.

The provider signs a quote, the payer locks its price on chain (`open`), the task is done, the payer
signs an `Accept`, and the contract pays.  The contract is `contracts/TaskEscrow.vy`.
"""
