"""Why: the one error that the oracle raises for input that it cannot judge by."""


class OracleInputError(ValueError):
    """Input that the oracle cannot judge by. The message says what, where and what to do."""
