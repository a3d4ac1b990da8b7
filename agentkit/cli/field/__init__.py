"""`agentkit field`: ten small canaries on a network, and a signed report of them."""
