"""What paying costs: gas on a chain, and signatures off it."""
