"""Who does it: one adapter per network, behind the Provider seam."""
