"""Files that are whole or not there: written under another name, synced, renamed."""

import os
from pathlib import Path

from serl_suite.wire.records import FULL, Buffer, DiskFull

__all__ = ["sync_folder", "write_durably"]


def write_durably(path: Path, *parts: Buffer) -> None:
    """Replaces a file by these parts in a row; when this returns it is on the disk itself, and a crash leaves the old
    file or the new one.

    Raises:
        DiskFull: Nothing was written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in FULL:
            raise DiskFull(
                f"cannot write {path}: {error.strerror}; free space on that file system"
            ) from error
        raise


def sync_folder(folder: Path) -> None:
    """Returns when the folder's entries are on the disk itself."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
