"""What a user did or has that cannot work. Commands print such an error as one line, without a traceback."""

import errno

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a full disk, a quota, a limit on the size of files


class UserError(ValueError):
    """The message names the bad value and says what would be accepted."""


def no_room(error: BaseException | None) -> bool:
    """Whether a write failed for want of room, which is no fault of the command line."""
    while error is not None and not (isinstance(error, OSError) and error.errno in FULL):
        error = error.__context__
    return error is not None
