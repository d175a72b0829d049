"""The one error that means: what the user gave is at fault, and the message says how to mend it."""


class InputError(ValueError):
    """Bad input: a file, a key, a size. One line that names it, says what is wrong and how to mend it.

    The tools print it without a traceback and leave with exit code 2.
    """
