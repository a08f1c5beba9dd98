"""Files written whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from .errors import EnvironmentError_, FormatError

__all__ = ["write_atomic"]


def write_atomic(path: str | Path, data: bytes | Callable[[IO[bytes]], Any]) -> None:
    """Write a file beside its place first, then rename it: readers see the old file or the new one, never a part.

    Parameters
    ----------
    path : path
        What is there is replaced.
    data : bytes or function
        The content, or what writes it to a binary stream.

    Raises
    ------
    FormatError
        There is no such folder.
    EnvironmentError_
        The place cannot be written.
    """
    path, temporary = Path(path), None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as stream:
            temporary = stream.name
            if callable(data):
                data(stream)
            else:
                stream.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if not path.parent.is_dir():
            raise FormatError(f"Cannot write {path}: there is no folder {path.parent}; make it, or name another place") from None
        raise EnvironmentError_(f"Cannot write {path}: {error.strerror}; name another place") from None
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
