"""What the operators refuse."""


class OperatorError(ValueError):
    """Name the input, what was found and what was expected."""
