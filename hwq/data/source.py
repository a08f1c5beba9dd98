"""What a data set needs to be found: its files, checksums, addresses; and the download into a cache."""

import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import EnvironmentError_, FormatError
from .dataset import Dataset

__all__ = ["Source", "cache_folder", "fetch"]


@dataclass(frozen=True)
class Source:
    """A data set as its authors publish it.

    Attributes
    ----------
    name : str
        Name on the command line.
    files : dict of str to str
        SHA-256 of every file by its name.
    addresses : tuple of str
        Folders on the net, tried in order.
    folders : tuple of str
        Places on this machine where a package puts it.
    read : (folder, split) -> Dataset
        Reads ``"train"`` or ``"test"``; raises `FormatError`.
    needs : (folder, split) -> bool
        Whether the folder holds the files of a split.
    """

    name: str
    files: dict[str, str]
    addresses: tuple[str, ...]
    folders: tuple[str, ...]
    read: Callable[[Path, str], Dataset]
    needs: Callable[[Path, str], bool]


def cache_folder(name: str) -> Path:
    """Return ``$XDG_CACHE_HOME/hwq/<name>``, by default under ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "hwq" / name


def _download(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as reply:
        return reply.read()


def fetch(source: Source, into: Path) -> None:
    """Download what ``into`` lacks, checked against the checksums, each file whole or not at all.

    Raises
    ------
    EnvironmentError_
        No network, no server has it, or the folder cannot be written.
    FormatError
        A file arrives that is not the one published.
    """
    try:
        into.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentError_(f"Cannot make the cache folder {into}: {error.strerror}; set XDG_CACHE_HOME") from None
    for name, digest in source.files.items():
        target = into / name
        if target.exists() and hashlib.sha256(target.read_bytes()).hexdigest() == digest:
            continue
        data, faults = b"", []
        for address in source.addresses:
            try:
                data = _download(address + name)
                break
            except (urllib.error.URLError, TimeoutError, OSError) as error:
                faults.append(f"{address}{name}: {getattr(error, 'reason', error)}")
        else:
            raise EnvironmentError_(f"Cannot download the data set '{source.name}' ({'; '.join(faults)}). Give a folder that "
                                    f"holds {', '.join(source.files)} with --data"
                                    + (f", or install the package that fills {source.folders[0]}" if source.folders else ""))
        if hashlib.sha256(data).hexdigest() != digest:
            raise FormatError(f"{name} of '{source.name}' arrived with the SHA-256 {hashlib.sha256(data).hexdigest()}, "
                              f"not {digest}; a proxy may have changed it: download it by hand")
        with tempfile.NamedTemporaryFile(dir=into, delete=False) as stream:
            stream.write(data)
        os.replace(stream.name, target)
