"""Who the agent is: signers with named operations, the typed messages they sign, keystores."""
