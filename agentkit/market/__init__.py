"""The market: the values that agent and provider exchange, and the interfaces between rooms."""
