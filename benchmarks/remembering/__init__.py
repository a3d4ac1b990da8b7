"""Parts of `benchmarks/memory.py`, each a program of its own."""
