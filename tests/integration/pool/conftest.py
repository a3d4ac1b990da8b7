from support.pool_fixtures import begun, children, pool, until

__all__ = ["begun", "children", "pool", "until"]
