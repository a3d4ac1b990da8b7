"""What reading a provider's JSON may raise."""

UNREADABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What reading a provider's JSON raises if it has another form than expected."""
