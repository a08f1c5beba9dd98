"""Errors a user can cause or mend. Each kind carries the exit code of the command line."""

__all__ = ["HwqError", "ModelError", "FormatError", "FitError", "ToolError", "EnvironmentError_", "VerifyError"]


class HwqError(Exception):
    """Base of all errors that hwq raises on purpose.

    The message says what was found, where, what is accepted, and what to do.

    Attributes
    ----------
    exit_code : int
        What the command line exits with: 1 wrong model or input, 2 usage (the argument parser's own),
        3 does not fit, 4 a tool failed, 5 something is missing on this machine, 6 a check found a difference,
        130 interrupted.
    """

    exit_code = 1


class ModelError(HwqError):
    """A network, layer or attribute that cannot be done exactly, or bad data for it."""


class FormatError(HwqError):
    """A number format, value or file that is malformed or out of range."""


class FitError(HwqError):
    """The design does not fit the device."""

    exit_code = 3


class ToolError(HwqError):
    """A tool ran and failed."""

    exit_code = 4


class EnvironmentError_(HwqError):
    """A tool, device or room to write is missing on this machine. What the user names wrongly is a `FormatError`."""

    exit_code = 5


class VerifyError(HwqError):
    """A check ran to its end and found a difference."""

    exit_code = 6
