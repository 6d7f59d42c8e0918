"""The one exception that a user's mistake raises."""


class UserError(ValueError):
    """Bad input; the message is one sentence: what is wrong, where, and what to do."""
