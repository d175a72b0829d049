"""The one error that means: what the user gave is at fault, and the message says how to mend it."""


class InputError(ValueError):
    """Bad input: a file, a key, a size. One line that names it, says what is wrong and how to mend it.

    The tools print it without a traceback and leave with exit code 2.
    """


def first_line(error: BaseException) -> str:
    """The reason that a library gives, to be put into a message: its first line without the full stop, or its kind."""
    text = "" if isinstance(error, KeyError) else str(error).strip()  # a KeyError has only the key
    line = text.split("\n")[0][:200].rstrip(". ")
    return line or type(error).__name__
