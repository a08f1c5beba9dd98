"""What a data set needs to be found: its files, checksums, addresses; and the download into a cache."""

import hashlib
import io
import os
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import EnvironmentError_, FormatError
from ..files import write_atomic
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
        SHA-256 of every file by its name; ``md5:...`` where the authors publish that alone. Archives (``.tar.gz``) are unpacked.
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


def _digest(data: bytes, like: str) -> str:
    """Return the checksum of ``data`` in the notation of ``like``."""
    return f"md5:{hashlib.md5(data, usedforsecurity=False).hexdigest()}" if like.startswith("md5:") \
        else hashlib.sha256(data).hexdigest()


def _unpack(data: bytes, into: Path) -> None:
    """Write the regular files of a checked archive below ``into``."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive, tempfile.TemporaryDirectory(dir=into) as scratch:
        archive.extractall(scratch, filter="data")
        for item in sorted(Path(scratch).iterdir()):
            os.replace(item, into / item.name)


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
        if target.exists() and _digest(target.read_bytes(), digest) == digest:
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
        found = _digest(data, digest)
        if found != digest:
            raise FormatError(f"{name} of '{source.name}' arrived with the {'MD5' if digest.startswith('md5:') else 'SHA-256'} "
                              f"{found}, not {digest}; a proxy may have changed it: download it by hand")
        if name.endswith(".tar.gz"):
            _unpack(data, into)
            continue
        write_atomic(target, data)
