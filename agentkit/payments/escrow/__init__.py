"""Money locked in a contract for one task: the payer's rail, the provider's book."""
