"""What a user did or has that cannot work. Commands print such an error as one line, without a traceback."""


class UserError(ValueError):
    """The message names the bad value and says what would be accepted."""
