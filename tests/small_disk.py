"""A file system of a few megabytes, to be filled."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile

from collections.abc import Iterator
from pathlib import Path

from dev.postgres import give


@contextlib.contextmanager
def small_disk() -> Iterator[Path | None]:
    """Give a folder for a tablespace on 4 MiB; None where only root could mount."""
    with tempfile.TemporaryDirectory() as name:
        disk = Path(name)
        give(disk)
        mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", name]
        if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
            yield None
            return
        try:
            folder = disk / "tablespace"
            folder.mkdir()
            give(folder)
            yield folder
        finally:
            umount = ["umount", "--lazy", name]
            subprocess.run(umount, check=True)
