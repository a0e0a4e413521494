"""
The pages of status, looked at by a real browser and by axe.

    python -m tests.seen_page AXE_MIN_JS [FOLDER]

Needs Chromium, and the file axe.min.js of npm's package axe-core. Opens the page of a
database, of one with a thousand migrations and of a thousand targets, as wide as a desk
and as a telephone, light and dark; prints what axe complains of, whether anything is
too wide, and how many lines each choice leaves. Exits 1 where something is not right.
FOLDER keeps the pictures.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile

from collections.abc import Mapping
from html import unescape
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from migration_gate.commands.answers import State, StatusLine
from migration_gate.commands.fleet.board import to_board
from migration_gate.commands.fleet.target_lines import TargetLine
from migration_gate.commands.page import Heading, to_html


MANY: Final = 1000
WIDTHS: Final = (1280, 390)
HEIGHT: Final = 844
# As Chromium's own setting has them.
SCHEMES: Final[Mapping[str, int]] = MappingProxyType({"dark": 0, "light": 1})
TIMEOUT_S: Final = 120
HEADING: Final = Heading(
    database="shop",
    host="db.example",
    server_version="17.10",
    made_at="2026-11-29 12:00:00",
    outcome="nothing pending",
    closed='1 migration is not applied: "004_a_rather_long_name_of_a_migration.sql"',
    hint="Look at the job or init container that runs migrate with these files.",
)
# Writes into the page around it what it sees in this one.
LOOK: Final = """<script>{axe}</script><script>
const shown = () => [...document.querySelectorAll("li")].filter(
  line => line.getClientRects().length).length;
const choices = {{}};
for (const button of document.querySelectorAll("input")) {{
  button.click(); choices[button.id] = shown(); }}
document.querySelector("input").click();
axe.run(document).then(seen => parent.postMessage({{
  complaints: seen.violations.map(
    each => each.id + ": " + each.nodes[0].html.slice(0, 200)),
  passes: seen.passes.length,
  is_too_wide: document.documentElement.scrollWidth > innerWidth,
  choices }}, "*"));
</script></body>"""
AROUND: Final = """<!DOCTYPE html><body style="margin: 0"><pre id="seen"></pre>
<script>onmessage = said =>
  document.getElementById("seen").textContent = JSON.stringify(said.data);</script>
<iframe src="page.html" style="border: 0; width: {width}px; height: {height}px">
</iframe></body>"""


def pages() -> dict[str, tuple[str, dict[str, int]]]:
    """Return each page, with how many lines its choices leave."""
    states: tuple[State, ...] = ("applied", "changed", "pending", "unfinished")
    few = [
        StatusLine(
            version=f"{number:03}_a_rather_long_name_of_a_migration_{'x' * 40}.sql",
            state=states[number % len(states)],
            applied_at=None if number % 4 == 2 else f"2026-11-0{number}T10:00:00Z",
            duration_ms=10**number,
            failure="a failure in words" if number == 6 else None,
        )
        for number in range(1, 8)
    ]
    many = [
        StatusLine(
            version=f"{number:04}_step.sql",
            state="applied",
            applied_at=f"2026-10-{1 + number % 28:02}T10:00:00Z",
            duration_ms=number,
        )
        for number in range(MANY)
    ]
    targets = [
        TargetLine(
            target=f"tenant_{number:04}",
            state="refused"
            if number % 97 == 0
            else "behind"
            if number % 10 == 0
            else "up to date",
            version="004_open_orders_index.sql",
            pending=("005_more.sql",) if number % 10 == 0 else (),
            reason="its history has a migration that is not shipped here"
            if number % 97 == 0
            else None,
        )
        for number in range(MANY)
    ]
    behind = sum(line.state == "behind" for line in targets)
    refused = sum(line.state == "refused" for line in targets)
    return {
        "a database": (to_html(HEADING, few), {"all": 7, "pending": 2, "look": 5}),
        "many migrations": (
            to_html(HEADING, many),
            {"all": MANY, "pending": 0, "look": 0},
        ),
        "a fleet": (
            to_board(HEADING, targets),
            {"all": MANY, "pending": behind, "look": refused},
        ),
    }


def browse(folder: Path, scheme: str, width: int, *arguments: str) -> str:
    """Run the browser, and return what it prints."""
    program = shutil.which("chromium") or "chromium"
    return subprocess.run(
        [
            program,
            *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            "--allow-file-access-from-files",
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={max(width, 500)},{HEIGHT}",
            f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
            "--virtual-time-budget=60000",
            *arguments,
            (folder / "around.html").as_uri(),
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    ).stdout


def look(folder: Path, page: str, axe: str, scheme: str, width: int) -> dict[str, Any]:
    """Return what is seen of a page, whose own policy would let no script in."""
    policy = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
    watched = policy.sub("", page).replace("</body>", LOOK.format(axe=axe))
    (folder / "page.html").write_text(watched)
    (folder / "around.html").write_text(AROUND.format(width=width, height=HEIGHT))
    found = re.search(
        r'<pre id="seen">(.+?)</pre>', browse(folder, scheme, width, "--dump-dom")
    )
    assert found, "the page said nothing"
    seen: dict[str, Any] = json.loads(unescape(found[1]))
    (folder / "page.html").write_text(page)
    return seen


def main(axe: Path, pictures: Path | None) -> int:
    """Look at each page in each way; print a row for each."""
    faults = 0
    script = axe.read_text("utf-8")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for page, (text, choices) in pages().items():
            for scheme in SCHEMES:
                for width in WIDTHS:
                    seen = look(folder, text, script, scheme, width)
                    wrong = seen["complaints"] + ["too wide"] * seen["is_too_wide"]
                    wrong += [f"{seen['choices']}"] * (seen["choices"] != choices)
                    faults += len(wrong)
                    told = "; ".join(wrong) or f"fine, {seen['passes']} rules of axe"
                    sys.stdout.write(f"{page}, {scheme}, {width} px: {told}\n")
                    if pictures is not None:
                        file = pictures / f"{page}-{scheme}-{width}.png".replace(
                            " ", "-"
                        )
                        browse(folder, scheme, width, f"--screenshot={file}")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else None))
