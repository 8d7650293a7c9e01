"""Local files: atomic writes, listing and messages. Used through `schemas/storage.py`."""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from urllib.parse import unquote, urlsplit

from schemas.object_stores import StorageError
from schemas.text_format import plural

__all__ = ["faults", "path_of", "sha256_of", "stat", "unfinished_name", "walk", "write"]

UNFINISHED = ".unfinished"


def path_of(uri: str) -> Path | None:
    """The local path of a URI, None where its scheme is another than file."""
    scheme, mark, _ = uri.partition("://")
    if not mark:
        return Path(uri).expanduser()
    if scheme != "file":
        return None
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise ValueError(f"{uri}: a file URI names no host; write file:///{parts.netloc}{parts.path} or a plain path")
    return Path(unquote(parts.path))


def unfinished_name(name: str, token: str) -> str:
    """The name under which a file is written before it is renamed."""
    return f".{name[:128]}.{token}{UNFINISHED}"


@contextlib.contextmanager
def faults(uri: str, wanted_bytes: int | None = None) -> Iterator[None]:
    """Turn what the operating system refuses into one line that says what to do."""
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "no such file", error.filename or uri) from None
    except OSError as error:
        raise StorageError(_message(uri, error, wanted_bytes)) from error


def _message(uri: str, error: OSError, wanted_bytes: int | None) -> str:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            size = f"{plural(wanted_bytes, 'byte')} to write" if wanted_bytes is not None else "writing"
            return f"{uri}: the disk is full ({size}): free some space or choose another folder"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return f"{uri}: permission denied ({error.strerror}): choose another folder or change its owner"
        case errno.EISDIR:
            return f"{uri}: a folder, where a file is expected"
        case errno.ENOTDIR | errno.EEXIST:
            return f"{uri}: a file stands where a folder is expected ({error.filename})"
        case _:
            return f"{uri}: {error.strerror or error}"


def stat(uri: str, path: Path) -> tuple[int, str]:
    """Size and mtime in nanoseconds of a regular file."""
    with faults(uri):
        found = path.stat()
    if path.is_dir():
        raise FileNotFoundError(errno.ENOENT, "a folder, not a file", uri)
    return found.st_size, str(found.st_mtime_ns)


def sha256_of(path: str | Path) -> str:
    """Hex digest of a file, read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(8 << 20):
            digest.update(block)
    return digest.hexdigest()


def walk(prefix: str, path: Path) -> Iterator[tuple[str, int, str]]:
    """(path, size, tag) of every file below a folder, links followed, in no set order."""
    root = str(path)
    seen: set[tuple[int, int]] = set()
    pending = [root]
    while pending:
        folder = pending.pop()
        with faults(prefix):
            try:
                here = os.stat(folder)
                entries = list(os.scandir(folder))
            except (FileNotFoundError, NotADirectoryError):
                continue
        # A link back to a folder above would never end.
        if (here.st_dev, here.st_ino) in seen:
            continue
        seen.add((here.st_dev, here.st_ino))
        for entry in entries:
            with faults(prefix):
                try:
                    found = entry.stat()
                except FileNotFoundError:
                    continue  # deleted since, or a link to nothing
                except OSError as error:
                    if error.errno == errno.ELOOP:
                        continue  # a link to itself
                    raise
            if S_ISDIR(found.st_mode):
                pending.append(entry.path)
            elif not entry.name.endswith(UNFINISHED) and S_ISREG(found.st_mode):
                yield entry.path, found.st_size, str(found.st_mtime_ns)


def write(uri: str, path: Path, data: bytes | Path, create_only: bool) -> None:
    """Write beside `path`, sync, then rename (or link, which refuses an existing name)."""
    size = len(data) if not isinstance(data, Path) else data.stat().st_size
    unfinished = path.with_name(unfinished_name(path.name, secrets.token_hex(8)))
    try:
        with faults(uri, size):
            path.parent.mkdir(parents=True, exist_ok=True)
            _fill(unfinished, data)
        _publish(uri, unfinished, path, create_only)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _fill(path: Path, data: bytes | Path) -> None:
    with path.open("xb") as file:
        if isinstance(data, Path):
            with data.open("rb") as source:
                shutil.copyfileobj(source, file, 8 << 20)
        else:
            file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _publish(uri: str, unfinished: Path, path: Path, create_only: bool) -> None:
    """Give a finished file its name, and sync the folder so that the name outlives a power cut."""
    if create_only:
        try:
            os.link(unfinished, path)
        except FileExistsError:
            raise FileExistsError(errno.EEXIST, "there already, and written only once", uri) from None
        except OSError as error:
            raise StorageError(
                f"{uri}: this file system has no hard links ({error.strerror}), "
                "which a file written only once needs: choose a folder on another"
            ) from error
    else:
        with faults(uri):
            os.replace(unfinished, path)
    with faults(uri):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
