"""The one exception that a user's mistake raises."""


class UserError(ValueError):
    """Bad input: one sentence saying what is wrong, where, and what to do."""
