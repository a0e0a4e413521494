"""
What status --html writes: one page that needs nothing else.

No script, no image, no request: what it looks like is in its head, and which lines are
shown follows from the choice at its top.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import sqrt
from typing import Final

from migration_gate import __version__
from migration_gate.commands.answers import State, StatusLine


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """
    What a page is about.

    ``server_version`` is empty where there may be several servers. ``closed`` says why
    the gate would be closed, and ``hint`` what to do; empty where it would be open.
    ``made_at`` is in UTC.
    """

    database: str
    host: str
    server_version: str
    made_at: str
    outcome: str
    closed: str = ""
    hint: str = ""


MS_PER_S: Final = 1000
S_PER_MINUTE: Final = 60
LEAST_SHARE: Final = 1.0
ESCAPES: Final = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "'": "&#39;",
}
# How a state is told apart; what is none of these is in order.
KINDS: Final[Mapping[State, str]] = {
    "pending": "pending",
    "held back": "pending",
    "to record": "pending",
    "changed": "odd",
    "unknown": "odd",
    "out of order": "odd",
    "unfinished": "bad",
    "half undone": "bad",
}
CHOICES: Final = (("all", "All"), ("pending", "Pending"), ("look", "Worth a look"))
STYLE: Final = """
:root { color-scheme: light dark; --back: #fff; --text: #1c2128; --quiet: #57606a;
  --line: #d0d7de; --good: #116329; --wait: #0550ae; --odd: #7d4e00; --bad: #a40e26;
  --bar: #6e9bd1; }
@media (prefers-color-scheme: dark) { :root { --back: #0d1117; --text: #e6edf3;
  --quiet: #9aa4af; --line: #30363d; --good: #56d364; --wait: #79c0ff; --odd: #e3b341;
  --bad: #ff9492; --bar: #4a7ab5; } }
* { box-sizing: border-box; }
body { background: var(--back); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif;
  margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.5rem; line-height: 1.2; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { border-bottom: 1px solid var(--line); color: var(--quiet); font-size: 1rem;
  margin: 2rem 0 0; padding-bottom: .25rem; }
p { margin: .25rem 0; overflow-wrap: anywhere; }
.quiet, time { color: var(--quiet); }
.verdict { border-left: .3rem solid var(--good); margin: 1rem 0; padding: .25rem 1rem; }
.verdict.closed { border-color: var(--bad); }
.verdict.closed p:first-child { color: var(--bad); }
fieldset { border: 0; display: flex; flex-wrap: wrap; gap: .25rem 1.5rem;
  margin: 1.5rem 0 0; padding: 0; }
legend { color: var(--quiet); float: left; margin-right: 1.5rem; padding: .25rem 0; }
label { cursor: pointer; padding: .25rem 0; }
ol { list-style: none; margin: 0; padding: 0; }
li { align-items: baseline; border-bottom: 1px solid var(--line); display: grid;
  gap: 0 1rem; grid-template-columns: 5rem 7rem 1fr 9rem; padding: .4rem 0; }
.name { font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
.took { font-variant-numeric: tabular-nums; text-align: right; }
.bar { background: var(--bar); border-radius: .2rem; display: block; height: .3rem;
  margin-left: auto; }
.good { color: var(--good); }
.pending { color: var(--wait); }
.odd { color: var(--odd); }
.bad { color: var(--bad); }
.verdict p:first-child { font-weight: 600; }
.why { color: var(--bad); grid-column: 3 / -1; margin: 0; }
.board li { grid-template-columns: 6rem 1fr 1fr 7rem; }
.board .why { grid-column: 2 / -1; }
.version { color: var(--quiet); font-family: ui-monospace, monospace;
  overflow-wrap: anywhere; }
body:has(#pending:checked) li:not(:has(.pending)),
body:has(#look:checked) li:not(:has(.odd, .bad, .why)),
body:has(#pending:checked) section:not(:has(.pending)),
body:has(#look:checked) section:not(:has(.odd, .bad, .why)) { display: none; }
@media (max-width: 40rem) {
  li { grid-template-columns: 1fr auto; }
  .name { grid-column: 1 / -1; grid-row: 1; }
  .why, .board .why, .version { grid-column: 1 / -1; }
  .board li { grid-template-columns: 1fr auto; }
  .board .took { grid-column: 2; grid-row: 2; }
  .version { grid-row: 3; }
  time { display: none; }
}
@media print { fieldset { display: none; } }
"""


def to_html(heading: Heading, lines: Sequence[StatusLine]) -> str:
    """Return the page of one database."""
    title = f"Migrations of {heading.database} on {heading.host}"
    kinds = [KINDS.get(line.state, "good") for line in lines]
    counts = {
        "all": len(lines),
        "pending": kinds.count("pending"),
        "look": sum(
            kind in {"odd", "bad"} or line.failure is not None
            for kind, line in zip(kinds, lines, strict=True)
        ),
    }
    return make_page(heading, title, [*choose(CHOICES, counts), *_sections(lines)])


def make_page(heading: Heading, title: str, content: Iterable[str]) -> str:
    """Return a page that needs nothing else; ``content`` is in HTML."""
    title = escape(title)
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            *_head(heading, title),
            "<main>",
            *content,
            "</main>",
            "</body>",
            "</html>",
        ]
    )


def escape(text: str) -> str:
    """Return a text that is nothing but text, in an element and in an attribute."""
    return "".join(ESCAPES.get(sign, sign) for sign in text)


def _head(heading: Heading, title: str) -> Iterator[str]:
    yield "<header>"
    yield f"<h1>{title}</h1>"
    server = heading.server_version and f"PostgreSQL {heading.server_version}, "
    yield (
        f'<p class="quiet">{escape(server)}seen {escape(heading.made_at)} UTC by '
        f"migration-gate {__version__}</p>"
    )
    kind = " closed" if heading.closed else ""
    yield f'<div class="verdict{kind}">'
    yield f"<p>{escape(heading.closed or heading.outcome)}</p>"
    if heading.hint:
        yield f"<p>{escape(heading.hint)}</p>"
    yield "</div>"
    yield "</header>"


def choose(
    choices: Sequence[tuple[str, str]], counts: Mapping[str, int]
) -> Iterator[str]:
    """Yield the choice of what is shown, each with how many lines it has."""
    yield "<fieldset><legend>Show</legend>"
    for name, words in choices:
        checked = " checked" if name == "all" else ""
        yield (
            f'<label><input type="radio" name="show" id="{name}"{checked}> '
            f"{words} ({counts[name]})</label>"
        )
    yield "</fieldset>"


def _sections(lines: Sequence[StatusLine]) -> Iterator[str]:
    """Yield what is not applied, then a section for each day, the newest first."""
    longest_ms = max((line.duration_ms or 0 for line in lines), default=0)
    waiting = [line for line in lines if not line.applied_at]
    applied = sorted(
        (line for line in reversed(lines) if line.applied_at),
        key=lambda line: line.applied_at or "",
        reverse=True,
    )
    if waiting:
        yield from _section("Not applied", waiting, longest_ms)
    for day, of_day in groupby(applied, lambda line: (line.applied_at or "")[:10]):
        yield from _section(day, tuple(of_day), longest_ms)


def _section(title: str, lines: Sequence[StatusLine], longest_ms: int) -> Iterator[str]:
    yield f"<section><h2>{escape(title)}</h2><ol>"
    for line in lines:
        yield from _line(line, longest_ms)
    yield "</ol></section>"


def _line(line: StatusLine, longest_ms: int) -> Iterator[str]:
    kind = KINDS.get(line.state, "good")
    at = (line.applied_at or "").partition("T")[2][:8]
    yield f"<li><time>{escape(at)}</time>"
    yield f'<span class="{kind}">{escape(line.state)}</span>'
    yield f'<span class="name">{escape(line.version)}</span>'
    yield f'<span class="took">{_took(line.duration_ms, longest_ms)}</span>'
    if line.failure is not None:
        failed_at = escape(line.failed_at or "")
        yield (
            f'<p class="why">The last attempt failed at {failed_at}: '
            f"{escape(line.failure)}</p>"
        )
    yield "</li>"


def _took(duration_ms: int | None, longest_ms: int) -> str:
    """Return a duration with a bar, whose length grows with the root of it."""
    if duration_ms is None:
        return ""
    share = 100 * sqrt(duration_ms / longest_ms) if longest_ms else 0
    bar = f'<span class="bar" style="width: {max(share, LEAST_SHARE):.0f}%"></span>'
    return f"{describe_duration(duration_ms)}{bar}"


def describe_duration(duration_ms: int) -> str:
    """Return a duration as a person says it."""
    if duration_ms < MS_PER_S:
        return f"{duration_ms} ms"
    seconds = duration_ms / MS_PER_S
    if seconds < S_PER_MINUTE:
        return f"{seconds:.1f} s"
    return f"{int(seconds // S_PER_MINUTE)} min {int(seconds % S_PER_MINUTE)} s"
