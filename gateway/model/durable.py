"""Files of our own: written so that a power cut cannot undo it, and with nothing else in their place."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from itertools import count
from pathlib import Path

log = logging.getLogger(__name__)


def replace_file(path: Path, data: bytes) -> None:
    """Put data in the place of a file; on the disk when this returns, a power cut leaves old or new. Raises OSError."""
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Have the names in a folder on the disk; raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_way(path: Path, at_most: int, access: int = os.R_OK) -> None:
    """Put aside what stands where a file of ours belongs and is none; what cannot be renamed stays.

    That is a folder, a link to nowhere, a pipe, a file of more than `at_most` bytes, or one to which this user has not
    this `access` (os.R_OK, os.W_OK).
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            why = "is not a file"
        elif found.st_size > at_most:
            why = f"has {found.st_size} bytes, not more than {at_most} are ours"
        elif not os.access(path, access, effective_ids=True):
            why = "is closed to this user"
        else:
            return
    except OSError as error:
        if not path.is_symlink():
            return
        why = f"is a link that leads nowhere ({error.strerror})"
    aside = next(name for n in count(1) if not os.path.lexists(name := path.with_name(f"{path.name}.unused{n}")))
    with contextlib.suppress(OSError):
        path.rename(aside)
        log.error("%s %s; it is put aside as %s", path, why, aside.name)
