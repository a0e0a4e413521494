"""
A file's content: a small one whole, a large one block by block.

Reads the disk. What is read of a large file is compared with what was read before: what
is sent is what was judged, though others may write to the file meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat

from pathlib import Path
from typing import Final

from migration_gate.files.listing import error_words, path_of
from migration_gate.files.migration import changed
from migration_gate.report.errors import FileFault, MigrationFilesError
from migration_gate.statements import BLOCK_BYTES, Content, LargeText


LARGE_MIN_BYTES: Final = 4 << 20
READ_MIN_BYTES: Final = 1 << 16  # of what does not say how long it is


def read(folder: str | Path, name: str) -> Content:
    """
    Return a file's content; a large one stays open as long as that is used.

    Raises:
        OSError: It cannot be read, or is no file.
    """
    # Ten thousand files may be read by a gate that has nothing to do: in half the time
    # that Path.open() takes.
    # A pipe would wait for who writes it, and a device may have no end.
    file = os.open(path_of(folder, name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    is_large = False
    try:
        facts = os.fstat(file)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        is_large = facts.st_size >= LARGE_MIN_BYTES
        if is_large:
            return LargeText(facts.st_size, _Blocks(name, file, facts.st_size).read)
        content = b""
        while block := os.read(file, max(facts.st_size + 1, READ_MIN_BYTES)):
            content += block
        return content
    finally:
        if not is_large:
            os.close(file)


def unreadable(name: str, error: OSError) -> FileFault:
    """Return the fault of a file that cannot be read."""
    is_odd = error.errno == errno.EINVAL
    return FileFault(
        file=name,
        problem=f"cannot read the file: {error_words(error)}",
        remedy="Put a file in its place, or take it out of the folder."
        if is_odd
        else "Make it readable for the user that the gate runs as.",
    )


class _Blocks:
    """The blocks of an open file, each with a hash of what it was when first read."""

    def __init__(self, name: str, file: int, size: int) -> None:
        self._name = name
        self._file = file
        self._size = size
        # Of 64 bits, and keyed anew in each process (SipHash).
        self._hashes: dict[int, int] = {}

    def __del__(self) -> None:
        os.close(self._file)

    def read(self, number: int) -> bytes:
        """
        Return a block.

        Raises:
            MigrationFilesError: The file is not what it was, or cannot be read.
        """
        start = number * BLOCK_BYTES
        length = min(BLOCK_BYTES, self._size - start)
        try:
            block = os.pread(self._file, length, start)
            size = os.fstat(self._file).st_size
        except OSError as error:
            raise MigrationFilesError([unreadable(self._name, error)]) from error
        found = hash(block)
        if (
            len(block) != length
            or size != self._size
            or self._hashes.setdefault(number, found) != found
        ):
            raise MigrationFilesError([changed(self._name)])
        return block
