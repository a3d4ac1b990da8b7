"""What an agent knows: notes, facts, a key-value store, and search over them."""
