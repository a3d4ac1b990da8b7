"""Payment channels: the payer's rail and the provider's book of vouchers.

A channel is its terms, hashed to an id; the contract is that of x402 `batch-settlement`.  Between
our own nodes the payer signs a voucher with a growing total for every delivered task (`rail`,
`book`).  By the scheme itself it signs one with each request (`lanes`, `seller`).  The provider
keeps the newest voucher and claims it in time (`claiming`).
"""
