"""
Compare how a script is split with PostgreSQL's own two judges, over any amount of SQL.

`python -m tests.differential [--psql PATH] [FOLDER...]` reads every .sql file there, or
of the Debian sources that `real_sql` fetches, and prints what was compared and each
disagreement. The judges are the server's grammar (libpg_query, through pglast) and
psql, which is run against a server that takes everything and notes what it was sent.
"""

from __future__ import annotations

import argparse
import io
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Self

from pglast.ast import CopyStmt, FuncCall
from pglast.parser import ParseError, parse_sql
from pglast.parser import split as parser_split

from dev.postgres import CACHE, tool
from migration_gate.statements import ScriptError, Statement, split
from migration_gate.statements.forms import BYTE_ORDER_MARK, forms, skip_blank
from tests.grammar import Node, compare_recognition, setting
from tests.real_sql import fetch


# A command that ends a statement, such as \gset, and one on a line of its own.
PSQL_SENDS = re.compile(
    rb"\\(?:gset|gexec|gdesc|gx|g|crosstabview|bind\w*|parse|watch|;)(?![A-Za-z])[^\n]*"
)
PSQL_COPY = re.compile(rb"^\\(copy\b[^\n]*)", re.MULTILINE)
PSQL_LINE = re.compile(rb"^[ \t]*\\(?![.N])[^\n]*", re.MULTILINE)

CHANGES_STRINGS = re.compile(rb"standard_conforming_strings|reset\s+all", re.IGNORECASE)
COPY_TERMINATOR = re.compile(rb"(?:(?<=\n)|\A)\\\.\r?\n\Z")

# Frontend/backend protocol, version 3.
PARAMETERS = (
    b"server_version\0" + b"18.0\0",
    b"client_encoding\0" + b"UTF8\0",
    b"standard_conforming_strings\0" + b"on\0",
)
SSL_REQUEST, GSS_REQUEST = 80877103, 80877104


@dataclass(frozen=True, slots=True)
class Sent:
    """One statement as it goes to the server, and the COPY data behind it."""

    text: bytes
    copy_data: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What came of comparing one script."""

    statements: int = 0
    refused: str | None = None
    # Statements that are no SQL to the grammar, whoever cuts them.
    unparsed: tuple[bytes, ...] = ()
    disagreements: tuple[str, ...] = field(default=())


def without_psql_commands(script: bytes) -> bytes:
    """Take out psql's commands, as far as lines show them; what they send stays."""
    script = PSQL_COPY.sub(rb"\1;", script)
    return PSQL_LINE.sub(b"", PSQL_SENDS.sub(b";", script))


def pieces_sent(script: bytes) -> list[Sent]:
    """Return the statements of a script as the gate would send them."""
    return [
        Sent(
            script[piece.first : sql_end(script, piece)],
            script[slice(*piece.copy_data)] if piece.copy_data else None,
        )
        for piece in split(script)
        if piece.number
    ]


def sql_end(script: bytes, piece: Statement) -> int:
    """Return where the SQL of a piece ends, before any COPY data."""
    if piece.copy_data is None:
        return piece.end
    return max(end for _, end, _ in forms(script[: piece.copy_data[0]], piece.first))


def compare_with_grammar(script: bytes) -> Findings:
    """Let libpg_query parse each piece alone, then all of them in one text."""
    try:
        pieces = split(script)
    except ScriptError as error:
        return Findings(refused=error.problem)
    disagreements, unparsed = [], []
    blanked = bytearray(script)
    is_standard = True
    for piece in pieces:
        end = sql_end(script, piece) if piece.number else piece.first
        text = script[piece.first : end]
        if not is_standard and b"\\" in text:
            # libpg_query reads strings in the standard way only: psql's to judge.
            blanked[piece.first : end] = b" " * (end - piece.first)
            continue
        try:
            parsed = parse_sql(text.decode())
        except ParseError:
            unparsed.append(text)
            blanked[piece.first : end] = b" " * (end - piece.first)
        else:
            is_standard = _standard_after(text, is_standard=is_standard)
            if len(parsed) != (piece.number > 0):
                found = f"piece {piece.number} holds {len(parsed)} statements"
                disagreements.append(found)
            for raw in parsed:
                disagreements += compare_recognition(piece, raw.stmt)
        blanked[end : piece.end] = b" " * (piece.end - end)
    kept = [
        (piece.first, sql_end(script, piece))
        for piece in pieces
        if blanked[piece.first] == script[piece.first]
    ]
    disagreements += _compare_whole(bytes(blanked), kept)
    return Findings(
        statements=sum(piece.number > 0 for piece in pieces),
        unparsed=tuple(unparsed),
        disagreements=tuple(disagreements),
    )


def _standard_after(text: bytes, *, is_standard: bool) -> bool:
    """Tell whether strings are standard behind a statement, as the grammar says."""
    if not CHANGES_STRINGS.search(text):
        return is_standard
    try:
        nodes = [raw.stmt for raw in parse_sql(text.decode())]
    except ParseError:
        return is_standard
    for node in nodes:
        name, value, _ = setting(node) or _set_config(node) or ("", None, "")
        if name == "standard_conforming_strings" or (name, value) == ("all", None):
            is_standard = value != "off"
    return is_standard


def _set_config(node: Node) -> tuple[str, str | None, str] | None:
    """Return what SELECT set_config('…', '…', …) sets."""
    targets: Node = getattr(node, "targetList", None) or ()
    call = targets[0].val if len(targets) == 1 else None
    if not isinstance(call, FuncCall):
        return None
    function: Node = call
    if function.funcname[-1].sval != "set_config":
        return None
    name, value, _ = (getattr(argument, "val", None) for argument in function.args)
    return getattr(name, "sval", ""), getattr(value, "sval", None), "session"


def _compare_whole(script: bytes, kept: Sequence[tuple[int, int]]) -> Iterator[str]:
    if script.startswith(BYTE_ORDER_MARK):
        script = script.replace(BYTE_ORDER_MARK, b"   ", 1)
    text = script.decode()
    found = []
    characters = offset = 0
    for part in parser_split(text, only_slices=True):
        offset += len(text[characters : part.start].encode())
        start = offset
        offset += len(text[part.start : part.stop].encode())
        characters = part.stop
        while (start := skip_blank(script, start)) < offset and script[start] == 59:
            start += 1
        found.append((start, min(skip_blank(script, offset) + 1, len(script))))
    if len(found) != len(kept):
        yield f"the grammar finds {len(found)} statements, not {len(kept)}"
    else:
        yield from (
            f"the grammar has a statement at {a}, not at {b}"
            for a, b in zip(found, kept, strict=True)
            if a[0] != b[0] or a[1] < b[1]
        )


class ObedientServer:
    """A server that takes whatever psql sends, and notes it."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.sent: list[Sent] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, client.makefile("rwb") as stream:
                self._greet(stream)
                self._answer(stream)

    def _greet(self, stream: io.BufferedRWPair) -> None:
        while True:
            size, code = struct.unpack("!ii", stream.read(8))
            stream.read(size - 8)
            if code not in {SSL_REQUEST, GSS_REQUEST}:
                break
            stream.write(b"N")
            stream.flush()
        stream.write(_message(b"R", struct.pack("!i", 0)))
        stream.writelines(_message(b"S", parameter) for parameter in PARAMETERS)
        stream.write(_message(b"Z", b"I"))
        stream.flush()

    def _answer(self, stream: io.BufferedRWPair) -> None:
        is_standard = True
        while (header := stream.read(5)) and header[:1] != b"X":
            body = stream.read(struct.unpack("!i", header[1:])[0] - 4)
            if header[:1] != b"Q":
                continue
            text = body[:-1]
            self.sent.append(Sent(text, self._take_copy_data(stream, text)))
            stream.write(_message(b"C", b"DONE\0"))
            is_standard = _standard_after(text, is_standard=is_standard)
            value = b"on\0" if is_standard else b"off\0"
            # psql reads strings as the server says that it does.
            stream.write(_message(b"S", b"standard_conforming_strings\0" + value))
            stream.write(_message(b"Z", b"I"))
            stream.flush()

    def _take_copy_data(self, stream: io.BufferedRWPair, text: bytes) -> bytes | None:
        if not _copies_from_stdin(text):
            return None
        stream.write(_message(b"G", struct.pack("!bh", 0, 0)))
        stream.flush()
        lines = b""
        while (header := stream.read(5))[:1] not in {b"c", b"f"}:
            lines += stream.read(struct.unpack("!i", header[1:])[0] - 4)
        stream.read(struct.unpack("!i", header[1:])[0] - 4)
        # psql before 18 sends the terminator too.
        return COPY_TERMINATOR.sub(b"", lines)


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def _copies_from_stdin(text: bytes) -> bool:
    try:
        statements = parse_sql(text.decode())
    except ParseError:
        return False
    copies = [raw.stmt for raw in statements if isinstance(raw.stmt, CopyStmt)]
    return any(copy.is_from and copy.filename is None for copy in copies)


def sent_by_psql(
    script: bytes,
    psql: str,
    server: ObedientServer,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> list[Sent]:
    """Return what psql sends for a script, without its empty statements."""
    server.sent.clear()
    with tempfile.NamedTemporaryFile(suffix=".sql") as file:
        file.write(script)
        file.flush()
        subprocess.run(
            [
                psql,
                *("-Xqd", f"host=127.0.0.1 port={server.port} sslmode=disable"),
                *("-c", "\\unset USER", "-c", "\\unset DBNAME"),
                *("-c", "\\unset LAST_ERROR_MESSAGE"),
                *(f"--set={name}={value}" for name, value in variables.items()),
                *("-f", file.name),
            ],
            env={"PGUSER": "x", "PGDATABASE": "x", "PGCLIENTENCODING": "UTF8"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
    return [sent for sent in server.sent if one_line(sent.text)]


def compare_with_psql(script: bytes, psql: str, server: ObedientServer) -> list[str]:
    """Say where psql cuts a script in another way than `split`."""
    ours = pieces_sent(script)
    theirs = sent_by_psql(script, psql, server)
    for number, (our, their) in enumerate(zip(ours, theirs, strict=False), 1):
        if one_line(our.text) != one_line(their.text):
            return [f"psql sends another statement {number}"]
        if our.copy_data != their.copy_data:
            return [f"psql sends other COPY data with statement {number}"]
    if len(ours) != len(theirs):
        return [f"psql sends {len(theirs)} statements, not {len(ours)}"]
    return []


def one_line(text: bytes) -> bytes:
    """Return a statement as it is compared."""
    # psql leaves out empty lines, and sends comments from before a statement.
    position = skip_blank(text, 0)
    while text[position : position + 1] == b";":
        position = skip_blank(text, position + 1)
    return b" ".join(text[position:].split())


# Why a script that psql takes is refused, or is not compared.
REFUSALS = {
    "psql command inside a statement": r"\gset and the like, or MySQL's strings",
    "COPY data without end": "psql takes the end of the file for it",
    "text after COPY ... FROM STDIN on the same line": "psql runs it after the data",
    "unterminated quoted string": "an error for PostgreSQL too",
    "not UTF-8": "a migration is UTF-8",
}


def main() -> int:
    """Compare every script in the folders given; return 1 when judges disagree."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    arguments.add_argument("--psql", help="path of psql", default=tool("psql"))
    options = arguments.parse_args()
    counts: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    folders = options.folders or fetch(CACHE / "differential")
    with ObedientServer() as server:
        for path in _scripts(folders):
            for line in _judge(path, options.psql, server, counts, refused):
                print(f"{path}: {line}")  # noqa: T201 - the report
    for line in _report(counts, refused):
        print(line)  # noqa: T201
    unexplained = refused.keys() - REFUSALS.keys()
    return 1 if counts["disagreements"] or unexplained else 0


def _report(counts: Counter[str], refused: Counter[str]) -> Iterator[str]:
    yield (
        f"{counts['files']} files, {counts['bytes'] / 1e6:.1f} MB, "
        f"{counts['statements']} statements, {counts['disagreements']} disagreements"
    )
    yield (
        f"{counts['unparsed']} statements are no SQL to the grammar: another "
        "database's or version's, or meant to fail; cut as psql cuts them"
    )
    for problem, count in sorted(refused.items()):
        yield f"{count} files not compared: {problem} ({REFUSALS.get(problem)})"


def _scripts(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        yield from sorted(path for path in folder.rglob("*.sql") if path.is_file())


def _has_psql_commands(script: bytes) -> bool:
    try:
        return not all(piece.number for piece in split(script))
    except ScriptError:
        return True


def _judge(
    path: Path,
    psql: str,
    server: ObedientServer,
    counts: Counter[str],
    refused: Counter[str],
) -> Iterator[str]:
    script = path.read_bytes()
    try:
        script.decode()
    except UnicodeDecodeError:
        refused["not UTF-8"] += 1
        return
    if _has_psql_commands(script):
        script = without_psql_commands(script)
    findings = compare_with_grammar(script)
    if findings.refused is not None:
        refused[findings.refused] += 1
        return
    disagreements = list(findings.disagreements)
    disagreements += compare_with_psql(script, psql, server)
    counts["files"] += 1
    counts["bytes"] += len(script)
    counts["statements"] += findings.statements
    counts["unparsed"] += len(findings.unparsed)
    counts["disagreements"] += len(disagreements)
    yield from disagreements


if __name__ == "__main__":
    sys.exit(main())
