"""Doing it: the executor, the run handle, verification."""
