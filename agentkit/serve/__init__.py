"""The other side of the market: the pool behind HTTP as a paid provider node."""
