"""
The checksums by which other tools know their files again. Pure.
"""

from __future__ import annotations

import hashlib
import re
import zlib

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from migration_gate.files.migration import BYTE_ORDER_MARK


def _crc32(content: bytes) -> str:
    """Return Flyway's: of the lines without their ends (ChecksumCalculator.java)."""
    text = content.removeprefix(BYTE_ORDER_MARK)
    unsigned = zlib.crc32(re.sub(rb"[\r\n]", b"", text))
    return str(unsigned - (unsigned >> 31 << 32))


TOOL_CHECKSUMS: Final[Mapping[str, Callable[[bytes], str]]] = MappingProxyType(
    {
        "flyway": _crc32,
        "prisma": lambda content: hashlib.sha256(content).hexdigest(),
        "sqlx": lambda content: hashlib.sha384(content).hexdigest(),
    }
)
