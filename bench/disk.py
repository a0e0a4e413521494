"""
Where the server's data lie: on a disk, and gone at once when the run is over.

A run leaves some hundred thousand small files, which an ext4 with online discard takes
minutes to remove. So root gets a file system of its own in one sparse file; others get
a folder in $TMPDIR.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import time

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final


PREFIX: Final = "gate-bench-"
REMOVE_ATTEMPTS: Final = 10
REMOVE_PAUSE_S: Final = 0.2
SIZE_BYTES: Final = 24 << 30  # sparse: it takes what is written


@contextmanager
def place() -> Iterator[Path]:
    """Give a folder on a disk, which is removed with everything in it."""
    sweep()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    folder.chmod(0o755)  # the server may be another user
    with (folder / "lock").open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        data = folder / "data"
        data.mkdir()
        try:
            mount(folder / "disk", data)
            yield data
        finally:
            remove(folder)


def mount(image: Path, data: Path) -> bool:
    """Make a file system in a file and mount it; False where that is not possible."""
    if os.geteuid() != 0:
        return False
    with image.open("wb") as file:
        file.truncate(SIZE_BYTES)
    return runs("mkfs.ext4", "-q", "-F", str(image)) and runs(
        "mount", "-o", "loop,nodiscard", str(image), str(data)
    )


def runs(*command: str) -> bool:
    """Run a command and tell whether it worked."""
    try:
        ended = subprocess.run(command, check=False, capture_output=True)
    except FileNotFoundError:
        return False
    return ended.returncode == 0


def remove(folder: Path) -> None:
    """Unmount what is mounted and remove everything."""
    data = folder / "data"
    if os.path.ismount(data):
        # Lazily where the server's last process is still about to end.
        runs("umount", str(data)) or runs("umount", "--lazy", str(data))
    for _ in range(REMOVE_ATTEMPTS):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(REMOVE_PAUSE_S)


def sweep() -> None:
    """Remove what runs that were killed have left."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/lock"):
        with suppress(OSError), path.open("a", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(path.parent)


def describe(data: Path) -> str:
    """Return the kind of file system that a folder lies on."""
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text("utf-8").splitlines():
        device, mounted, filesystem, *_ = line.split()
        if data.resolve().is_relative_to(mounted) and len(mounted) >= len(best):
            best, kind = mounted, filesystem
            if device.startswith("/dev/loop"):
                kind += " in a file"
    return kind
