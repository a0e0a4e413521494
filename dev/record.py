"""
Record real runs at a terminal, as pictures that move.

    .venv/bin/python -m dev.record

writes docs/recordings/*.svg anew: commands are run at a terminal of their own, what
they write is kept with its time, and becomes a drawing that plays it again and again.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from dev.postgres import ROOT, Server, conninfo_to_url, tool


FOLDER: Final = ROOT / "docs/recordings"
COLUMNS: Final = 96
DATABASES: Final = {"broken-migration": "shop", "fleet": "shops"}
# A pause that tells nothing is cut; one after a command lets its answer be read.
LONGEST_PAUSE_S: Final = 1.2
TYPING_S: Final = 1.0
READING_S: Final = 2.0
END_S: Final = 6.0
CELL_WIDTH: Final = 8.4
LINE_HEIGHT: Final = 20
MARGIN: Final = 16
COLOURS: Final = {"33": "#e3b341", "31": "#ff7b72", "32": "#7ee787"}
PLAIN: Final = "#e6edf3"
TOKEN: Final = re.compile(r"\x1b\[(?P<sgr>[\d;]*)m|\x1b\[K|\r\n|\r|\n|[^\x1b\r\n]+")
BROKEN: Final = """\
ALTER TABLE orders ADD COLUMN note text;
UPDATE orders SET note = '' WHERE id IS NOT NULL;
ALTER TABLE orders ALTER COLUMN nots SET NOT NULL;
"""
UNIQUE: Final = "CREATE UNIQUE INDEX customers_name_key ON customers (name);\n"
IN_THE_WAY: Final = """\
INSERT INTO tenant_4.customers (name, email)
VALUES ('Ada', 'ada@example.com'), ('Ada', 'lovelace@example.com');
"""
OUT_OF_THE_WAY: Final = (
    "UPDATE tenant_4.customers SET name = 'Ada L.' WHERE email ~ '^lovelace'"
)


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a line in one colour."""

    text: str
    colour: str


@dataclass(slots=True)
class Shown:
    """A line of the screen, from when to when; None is to the end."""

    row: int
    spans: tuple[Span, ...]
    since_s: float
    until_s: float | None = None


@dataclass(slots=True)
class Screen:
    """What a terminal shows, with the time: lines, one below another."""

    shown: list[Shown] = field(default_factory=list)
    row: int = 0
    _now: dict[int, Shown] = field(default_factory=dict)
    _spans: list[Span] = field(default_factory=list)
    _colour: str = PLAIN

    def write(self, text: str, at_s: float) -> None:
        """Take what was written: lines, colours, and lines that are written over."""
        for token in TOKEN.finditer(text):
            match token[0]:
                case "\r\n" | "\n":
                    self._show(at_s)
                    self.row += 1
                    self._spans = []
                case "\r":
                    self._show(at_s)
                    self._spans = []
                case "\x1b[K":
                    self._spans = []
                case sign if sign.startswith("\x1b"):
                    self._colour = COLOURS.get(token["sgr"] or "0", PLAIN)
                case words:
                    self._add(words, at_s)
        if self._spans:
            self._show(at_s)

    def _add(self, words: str, at_s: float) -> None:
        """Put words at the end of a line; what is too long goes on in the next."""
        while words:
            room = COLUMNS - sum(len(span.text) for span in self._spans)
            if not room:
                self._show(at_s)
                self.row += 1
                self._spans, room = [], COLUMNS
            self._spans.append(Span(words[:room], self._colour))
            words = words[room:]

    def _show(self, at_s: float) -> None:
        before = self._now.get(self.row)
        spans = tuple(self._spans)
        if before is not None and before.spans == spans:
            return
        if before is not None:
            before.until_s = at_s
        if spans:
            self._now[self.row] = Shown(self.row, spans, at_s)
            self.shown.append(self._now[self.row])


@dataclass(slots=True)
class Recorder:
    """Plays a scene: commands at a prompt, and what comes of them."""

    folder: Path
    environ: dict[str, str]
    screen: Screen = field(default_factory=Screen)
    at_s: float = 0.0

    def run(self, shown: str, command: Sequence[str] | None = None) -> None:
        """Type a command, run it at a terminal, and let its answer be read."""
        self.screen.write("\x1b[32m$\x1b[0m ", self.at_s)
        self.at_s += TYPING_S
        self.screen.write(f"{shown}\r\n", self.at_s)
        for text, pause_s in at_terminal(
            command or ["/bin/sh", "-c", shown], self.folder, self.environ
        ):
            self.at_s += min(pause_s, LONGEST_PAUSE_S)
            self.screen.write(text, self.at_s)
        self.at_s += READING_S


def main() -> None:
    """Record every scene, each on a database of its own."""
    FOLDER.mkdir(exist_ok=True)
    with Server("record") as server:
        for name, title, scene in SCENES:
            with tempfile.TemporaryDirectory() as folder:
                recorder = prepare(Path(folder), server, name)
                scene(recorder)
            picture = draw(recorder.screen, recorder.at_s + END_S, title)
            (FOLDER / f"{name}.svg").write_text(picture, "utf-8")


def prepare(folder: Path, server: Server, name: str) -> Recorder:
    """Return what records in a folder with the files, the gate and psql."""
    shutil.copytree(ROOT / "migrations", folder / "migrations")
    url = conninfo_to_url({**server.conninfo, "dbname": DATABASES[name]})
    # What a reader would see under another name: the clone's own interpreter.
    programs = {
        "gate": f"{sys.executable} {ROOT}/entrypoint.py",
        "psql": f"{tool('psql')} {url} --quiet",
    }
    for program, command in programs.items():
        (folder / program).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (folder / program).chmod(0o755)
    environ = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "TERM": "xterm-256color",
        "DATABASE_URL": url,
        "GATE_CREATE_DATABASE": "true",
    }
    return Recorder(folder, environ)


def record_broken_migration(recorder: Recorder) -> None:
    """A slip in the third line; what it left; what is done; and that it goes on."""
    prepare_quietly(recorder, "gate", "migrate")  # four are applied already
    (recorder.folder / "migrations/005_order_notes.sql").write_text(BROKEN)
    recorder.run("cat migrations/005_order_notes.sql")
    recorder.run('gate migrate; echo "exit code $?"')
    recorder.run("sed -i s/nots/note/ migrations/005_order_notes.sql")
    recorder.run('gate migrate; echo "exit code $?"')
    recorder.run("gate status 2>/dev/null")


def record_fleet(recorder: Recorder) -> None:
    """One tenant of six has a row that is in the way; the others do not wait for it."""
    names = [f"tenant_{number}" for number in range(1, 7)]
    query = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^tenant_' ORDER BY 1"
    prepare_quietly(recorder, "gate", "wait")
    schemas = "".join(f"CREATE SCHEMA {name};" for name in names)
    prepare_quietly(recorder, "psql", "--command", schemas)
    recorder.environ["GATE_TARGETS"] = f"schemas:{query}"
    prepare_quietly(recorder, "gate", "migrate")
    prepare_quietly(recorder, "psql", "--command", IN_THE_WAY)
    (recorder.folder / "migrations/005_one_name.sql").write_text(UNIQUE)
    recorder.run('echo "$GATE_TARGETS"')
    recorder.run("cat migrations/005_one_name.sql")
    recorder.run('gate migrate; echo "exit code $?"')
    recorder.run("gate status 2>/dev/null")
    recorder.run(f'psql --command "{OUT_OF_THE_WAY}"')
    recorder.run('gate migrate; echo "exit code $?"')


def prepare_quietly(recorder: Recorder, *command: str) -> None:
    """Run what nobody needs to see."""
    for _ in at_terminal(command, recorder.folder, recorder.environ):
        pass


SCENES: Final[Sequence[tuple[str, str, Callable[[Recorder], None]]]] = (
    (
        "broken-migration",
        "A broken migration is found, mended, and gone on with",
        record_broken_migration,
    ),
    (
        "fleet",
        "A fleet: one tenant fails, the others do not, and it is caught up with",
        record_fleet,
    ),
)


def at_terminal(
    command: Sequence[str], folder: Path, environ: dict[str, str]
) -> Iterator[tuple[str, float]]:
    """Yield what a command writes to its terminal, each with the pause before it."""
    ours, theirs = pty.openpty()
    size = struct.pack("HHHH", 40, COLUMNS, 0, 0)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
    process = subprocess.Popen(
        command, cwd=folder, env=environ, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    before_s = time.monotonic()
    while block := read(ours):
        now_s = time.monotonic()
        yield block, now_s - before_s
        before_s = now_s
    process.wait()
    os.close(ours)


def read(terminal: int) -> str:
    """Return what was written; nothing when the other end is closed."""
    try:
        return os.read(terminal, 65536).decode(errors="replace")
    except OSError:  # how Linux tells of the end of a terminal
        return ""


def draw(screen: Screen, length_s: float, title: str) -> str:
    """Return the drawing that plays what a screen showed."""
    rows = 1 + max(line.row for line in screen.shown)
    width = round(COLUMNS * CELL_WIDTH + 2 * MARGIN)
    height = rows * LINE_HEIGHT + 2 * MARGIN
    told = "\n".join(
        "".join(span.text for span in line.spans)
        for line in sorted(screen.shown, key=lambda line: line.row)
        if line.until_s is None
    )
    frames, drawn = [], []
    for number, line in enumerate(screen.shown):
        start, end = (
            100 * at_s / length_s for at_s in (line.since_s, line.until_s or length_s)
        )
        frames.append(
            f"@keyframes k{number}{{0%{{opacity:0}}{start:.2f}%{{opacity:1}}"
            f"{end:.2f}%{{opacity:0}}}}"
        )
        gone = ' class="gone"' if line.until_s is not None else ""
        drawn.append(
            f'<text{gone} x="{MARGIN}" y="{MARGIN + 15 + line.row * LINE_HEIGHT}" '
            f'style="animation-name:k{number}">'
            f"{''.join(map(_tspan, line.spans))}</text>"
        )
    style = (
        f"text{{animation:{length_s:.1f}s step-end infinite;white-space:pre;"
        "font:14px ui-monospace,Menlo,Consolas,monospace}"
        "@media (prefers-reduced-motion:reduce){text{animation:none}"
        ".gone{opacity:0}}" + "".join(frames)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">\n'
        f"<title>{escape(title)}</title>\n<desc>{escape(told)}</desc>\n"
        f"<style>{style}</style>\n"
        f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>\n'
        + "\n".join(drawn)
        + "\n</svg>\n"
    )


def _tspan(span: Span) -> str:
    return (
        f'<tspan fill="{span.colour}" xml:space="preserve">{escape(span.text)}</tspan>'
    )


if __name__ == "__main__":
    main()
