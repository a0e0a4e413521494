"""
The checksums by which other tools know their files again. Pure.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib

from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from migration_gate.files.migration import BYTE_ORDER_MARK


WORD: Final = (1 << 64) - 1
REFINERY_NAME: Final = re.compile(r"V(?P<version>[0-9]+)__(?P<name>\w+)")
GRAPHILE: Final = re.compile(
    rb"--! Previous: (?P<previous>[^\n]*)\n--! Hash: [^\n]*\n"
    rb"(?:--! (?!no-transaction)[^\n]*\n)*\n(?P<body>.*)",
    re.DOTALL,
)
# sql/migrate/dir.go: directiveSum.
ATLAS_IGNORED: Final = re.compile(rb"\A(?:--[^\n]*\n)*--[ \t]*atlas:sum ignore\b")


def _crc32(_version: str, content: bytes) -> Collection[str]:
    """Return Flyway's: of the lines without their ends (ChecksumCalculator.java)."""
    text = content.removeprefix(BYTE_ORDER_MARK)
    unsigned = zlib.crc32(re.sub(rb"[\r\n]", b"", text))
    return (str(unsigned - (unsigned >> 31 << 32)),)


def _prisma(_version: str, content: bytes) -> Collection[str]:
    """Return checksum.rs' in all forms: old ones have no zeros before a digit."""
    plain = content.replace(b"\r\n", b"\n")
    texts = (content, plain, plain.replace(b"\n", b"\r\n"))
    digests = [hashlib.sha256(text) for text in texts]
    unpadded = ["".join(f"{byte:x}" for byte in d.digest()) for d in digests]
    return [*(digest.hexdigest() for digest in digests), *unpadded]


def _graphile(_version: str, content: bytes) -> Collection[str]:
    """Return hash.ts': of the body, and the hash of the one before it."""
    match = GRAPHILE.fullmatch(content.removeprefix(BYTE_ORDER_MARK))
    if match is None:
        return ()
    previous = match["previous"].strip().removeprefix(b"-")
    text = (previous + b"\n" + match["body"]).strip() + b"\n"
    digest = hashlib.sha1(text, usedforsecurity=False).hexdigest()
    return (f"sha1:{digest}",)


def _refinery(version: str, content: bytes) -> Collection[str]:
    """Return runner.rs': its version has 4 bytes, or 8 by a feature of the crate's."""
    match = REFINERY_NAME.match(version)
    if match is None:
        return ()
    number = int(match["version"])
    start, end = match["name"].encode() + b"\xff", content + b"\xff"
    return [
        str(_siphash(start + number.to_bytes(size, "little") + end)) for size in (4, 8)
    ]


def _siphash(data: bytes) -> int:
    """Return SipHash-1-3 with a key of zeros, as Rust's hasher gives it."""
    v0, v1 = 0x736F6D6570736575, 0x646F72616E646F6D
    v2, v3 = 0x6C7967656E657261, 0x7465646279746573

    def mix() -> None:
        nonlocal v0, v1, v2, v3
        v0 = (v0 + v1) & WORD
        v1 = (v1 << 13 & WORD | v1 >> 51) ^ v0
        v0 = v0 << 32 & WORD | v0 >> 32
        v2 = (v2 + v3) & WORD
        v3 = (v3 << 16 & WORD | v3 >> 48) ^ v2
        v0 = (v0 + v3) & WORD
        v3 = (v3 << 21 & WORD | v3 >> 43) ^ v0
        v2 = (v2 + v1) & WORD
        v1 = (v1 << 17 & WORD | v1 >> 47) ^ v2
        v2 = v2 << 32 & WORD | v2 >> 32

    whole = len(data) & ~7
    last = int.from_bytes(data[whole:], "little") | (len(data) & 0xFF) << 56
    for start in range(0, whole + 1, 8):
        block = last
        if start < whole:
            block = int.from_bytes(data[start : start + 8], "little")
        v3 ^= block
        mix()
        v0 ^= block
    v2 ^= 0xFF
    for _ in range(3):
        mix()
    return v0 ^ v1 ^ v2 ^ v3


# By the file's version and content: each that the tool may have recorded.
TOOL_CHECKSUMS: Final[Mapping[str, Callable[[str, bytes], Collection[str]]]] = (
    MappingProxyType(
        {
            "flyway": _crc32,
            "prisma": _prisma,
            "sqlx": lambda _, content: (hashlib.sha384(content).hexdigest(),),
            "drizzle": lambda _, content: (hashlib.sha256(content).hexdigest(),),
            "graphile-migrate": _graphile,
            "refinery": _refinery,
        }
    )
)


def running_checksums(files: Iterable[tuple[str, bytes]]) -> Mapping[str, str]:
    """
    Return Atlas' by version: each is of the files before it too (dir.go: NewHashFile).

    Args:
        files: Version and content of each, by name.
    """
    running = hashlib.sha256()
    found = {}
    for version, content in files:
        running.update(version.encode())
        if ATLAS_IGNORED.match(content) is None:
            running.update(content)
            found[version] = base64.b64encode(running.digest()).decode()
    return MappingProxyType(found)
