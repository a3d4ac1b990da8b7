"""Where each node runs: offers, policies and a solver make a plan; nothing is spent."""
