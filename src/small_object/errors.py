"""Mistakes of the user, as opposed to bugs of the program."""

import errno
import re

NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}
UPSTREAM_TEXTS = re.compile(r"ERROR |YAML syntax error |Classification datasets |.* key missing |.*acceptable suffix")
"""Upstream's messages to the user."""


class UserError(ValueError):
    """The user's input can't be used. The message is one line that says what is wrong and what to do.

    The `yolo` command prints the message without a traceback.
    """


def one_line(text: object) -> str:
    """Return a text with every run of whitespace replaced by one space."""
    return " ".join(str(text).split())


def explain(error: BaseException) -> str | None:
    """Return the line that tells the user what ended a `yolo` command, or None if the error is a bug of the program."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__cause__
    if cause is not None:
        # A loader process's error holds its traceback as text, with the message at the end. Other messages may explain
        # the whole command line after an empty line.
        return one_line(str(cause).rpartition(f"{UserError.__name__}: ")[2].strip().partition("\n\n")[0])
    if str(error).startswith("Dataset '") and isinstance(error.__cause__, (OSError, SyntaxError, ValueError)):
        error = error.__cause__  # upstream's trainer wraps what is wrong with a data YAML
    if isinstance(error, OSError) and error.errno in NOT_WRITABLE:
        return f"{error.filename}: {error.strerror}; if results go there, choose another folder with project="
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    text = one_line(error)
    if isinstance(error, FileNotFoundError) or UPSTREAM_TEXTS.match(text):
        return text.removeprefix("ERROR ").lstrip("❌\ufe0f ")
    return None
