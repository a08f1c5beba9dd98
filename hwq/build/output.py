"""The output folder: made whole or not at all, beside its place first, by one build at a time."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import EnvironmentError_, FormatError, HwqError

try:
    import fcntl
except ImportError:                                      # Windows: no lock
    fcntl = None                                         # type: ignore[assignment]

__all__ = ["output_folder"]

_MANIFEST = "manifest.json"
# What comes into a build folder after the build: logs, executables of the simulation, what README.txt says to type.
_LATER = (".sim/", "obj_dir/", "accel_tb.vvp")
_LOGS = (".log", ".ys", ".json")
_FULL = 1 << 20                                          # bytes; with less than that left, the disk counts as full


@contextmanager
def output_folder(output: Path) -> Iterator[Path]:
    """Give an empty folder to work in; when the block ends well it becomes ``output``, otherwise it goes.

    An earlier build in ``output`` is replaced at the end, if nothing else lies in it. After an error the tools' logs stay in
    ``OUTPUT.logs`` and the error's text says so; after an interrupt nothing stays.

    Parameters
    ----------
    output : Path
        Folders above it are made.

    Raises
    ------
    FormatError
        ``output`` or a folder above it is a file; it holds something else; it is where the user stands.
    EnvironmentError_
        Another build is writing to it; the place cannot be written to; the disk is full.
    """
    if output.is_symlink() and not output.exists():
        raise FormatError(f"Output folder {output} is a link to nowhere; give another one with -o")
    output = output.resolve()
    _check(output)
    made = _make_parents(output.parent)
    work, old = (output.with_name(f".{output.name}.{state}") for state in ("building", "old"))
    try:
        with _locked(output):
            _recover(output, work, old)
            try:
                work.mkdir()
                yield work
                _publish(work, output, old)
            except BaseException as error:
                kept = _keep_logs(work, output) if isinstance(error, HwqError | OSError) else None
                # What a tool or a library says of a full disk is rarely plain.
                full = _is_full(output.parent, error)
                shutil.rmtree(work, ignore_errors=True)
                _recover(output, work, old)
                where = f" Logs are kept in {kept}." if kept else ""
                if full:
                    raise EnvironmentError_(f"The disk that holds {output.parent} is full: the build needs room for about 20 MB. "
                                            f"Free some, or give another place with -o.{where}") from None
                if isinstance(error, OSError):
                    raise EnvironmentError_(f"Cannot write the build to {output}: {_reason(error)}.{where}") from None
                if isinstance(error, HwqError) and kept:
                    text = str(error).replace(str(work / "logs"), str(kept))
                    raise type(error)(text if str(kept) in text else text + where) from None
                raise
    except BaseException:
        for folder in made:
            try:
                folder.rmdir()
            except OSError:                              # something is in it by now
                break
        raise


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _check(output: Path) -> None:
    if not output.exists():
        return
    if not output.is_dir():
        raise FormatError(f"Output folder {output} is a file; give another name with -o")
    try:
        names = sorted(entry.name for entry in output.iterdir())
        ours = _files(output) if names else set()
        found = sorted(str(path.relative_to(output)) for path in output.rglob("*") if path.is_symlink() or not path.is_dir())
    except OSError as error:
        raise EnvironmentError_(f"Cannot read the output folder {output}: {_reason(error)}") from None
    if ours is None:
        raise FormatError(f"Output folder {output} holds something that is no build ({_some(names)}); give another one with -o")
    foreign = [name for name in found if name not in ours and not name.startswith(_LATER)
               and not (name.startswith("logs/") and name.endswith(_LOGS))]
    if foreign:
        raise FormatError(f"Output folder {output} is an earlier build, but holds files that hwq did not make ({_some(foreign)}) "
                          "and that would be lost; move them, or give another folder with -o")
    here = Path.cwd().resolve()
    if output in (here, *here.parents):
        raise FormatError(f"Output folder {output} is the current folder or holds it, and would be replaced; "
                          "go elsewhere, or give another one with -o")


def _files(output: Path) -> set[str] | None:
    """Return the files that the build in a folder wrote; None if it holds none."""
    try:
        manifest = json.loads((output / _MANIFEST).read_text())
        return {_MANIFEST, *manifest["files"].keys()} if manifest["model_hash"] and manifest["format"] else None
    except (FileNotFoundError, IsADirectoryError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _make_parents(parent: Path) -> list[Path]:
    """Make the folders above the output; return the new ones, innermost first."""
    missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    for folder in (parent, *parent.parents):
        if folder.is_file():
            raise FormatError(f"Cannot write to {parent}: {folder} is a file; give another place with -o")
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        for folder in missing:
            if folder.exists():
                folder.rmdir()
        raise EnvironmentError_(f"Cannot write to {parent}: {_reason(error)}; give another place with -o") from None
    return missing


@contextmanager
def _locked(output: Path) -> Iterator[None]:
    """Hold the lock of an output folder; it goes with the process, however that ends."""
    path = output.with_name(f".{output.name}.lock")
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise EnvironmentError_(f"Cannot write to {output.parent}: {_reason(error)}; give another place with -o") from None
        try:
            if fcntl is None:
                break
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it before may have removed the file between our two steps.
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                break
        except OSError as error:
            os.close(handle)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise EnvironmentError_(f"Another build is writing to {output}; wait for it, or give another folder with -o") from None
        os.close(handle)
    try:
        yield
    finally:
        if fcntl is not None:
            path.unlink(missing_ok=True)
        os.close(handle)
        if fcntl is None:
            path.unlink(missing_ok=True)


def _publish(work: Path, output: Path, old: Path) -> None:
    work.chmod(0o777 & ~_umask())
    _check(output)                                       # again: the build took its time
    if output.exists():
        output.rename(old)
    work.rename(output)
    shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _recover(output: Path, work: Path, old: Path) -> None:
    """Undo what a build left that was killed, or failed in the middle of `_publish`; the lock is held."""
    if old.exists() and not output.exists():
        old.rename(output)
    for folder in (old, work):
        if folder.exists():
            shutil.rmtree(folder, ignore_errors=True)


def _is_full(folder: Path, error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    try:
        return isinstance(error, HwqError | OSError) and shutil.disk_usage(folder).free < _FULL
    except OSError:
        return False


def _keep_logs(work: Path, output: Path) -> Path | None:
    """Move the logs beside the place of the output; return where they are, None if there are none."""
    logs = work / "logs"
    if not logs.is_dir() or not any(logs.iterdir()):
        return None
    for number in range(1, 100):
        kept = output.with_name(f"{output.name}.logs" + (f".{number}" if number > 1 else ""))
        try:
            if kept.exists():                            # of an earlier build, or the user's own, which stays
                if not kept.is_dir() or any(entry.suffix not in (".log", ".ys") for entry in kept.iterdir()):
                    continue
                shutil.rmtree(kept)
            logs.rename(kept)
            return kept
        except OSError:
            return None
    return None
