"""Mistakes of the user, as opposed to faults of the program."""


class UserError(ValueError):
    """What the user gave cannot be used; the message is one line that says what is wrong and what to do.

    The `yolo` command prints the message without a traceback.
    """


def one_line(text: object) -> str:
    """Return a text without line breaks and other repeated blanks, as a message shows it."""
    return " ".join(str(text).split())
