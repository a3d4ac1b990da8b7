"""The native GPU pool: slots in child processes that infer, train and query."""
