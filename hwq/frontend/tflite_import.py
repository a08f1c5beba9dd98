"""From a TensorFlow Lite file (int8) to the integer network that equals the reference kernels bit for bit."""

from collections.abc import Callable
from pathlib import Path

from ..errors import FormatError, HwqError
from .builder import Imported
from .tflite_context import Importer
from .tflite_rules import RULES

__all__ = ["import_tflite"]


def import_tflite(path: str | Path, name: str | None = None, say: Callable[[str], None] = lambda text: None) -> Imported:
    """Return the integer network of an int8 TensorFlow Lite file.

    It equals the reference kernels (TensorFlow Lite Micro) on every tensor: each requantization is the smallest
    multiplier and shift that agree with them on every reachable sum.

    Parameters
    ----------
    path : path
        The file.
    name : str, optional
        Name of the network; default: the file's.
    say : function of str
        Told what is being done.

    Raises
    ------
    FormatError, ModelError, EnvironmentError_
        See `read_tflite`; an operator, type or attribute without an exact counterpart, by name.
    """
    path = Path(path)
    importer = Importer(path, name or path.stem, say, RULES)
    try:
        return importer.run()
    except HwqError as error:
        raise type(error)(f"{path}: {error}") from None
    except (ArithmeticError, ValueError, TypeError, LookupError, AttributeError) as error:         # of malformed values
        raise FormatError(f"{path} is malformed: {error!r}") from None
