"""Payment channels: the payer's rail and the provider's book of vouchers.

A channel is its terms, hashed to an id; the contract is `contracts/AgentChannels.vy`.  The payer
signs a voucher with a growing total for every delivered task.  The provider keeps the newest
voucher and claims it when the channel closes.  Nothing is signed for what was not delivered.
"""
