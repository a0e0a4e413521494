"""What the tests of the pages share: the pages, and how they are read."""

from __future__ import annotations

import ast
import functools
import re

from pathlib import Path


ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "migration_gate"
FOLDERS = ("docs", "k8s", "bench", "image", "observability", "chart", "action")
MODULES = sorted(PACKAGE.rglob("*.py"))
PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", *(f"{name}/*.md" for name in FOLDERS))
    for path in ROOT.glob(pattern)
)

FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
CELL = re.compile(r"(?<!\\)\|")
END_OF_SENTENCE = re.compile(r"[.!?](?=\s+[A-Z`*\[])")


def read(name: str) -> str:
    """Return a file of the project's root."""
    return (ROOT / name).read_text("utf-8")


@functools.cache
def parse(path: Path) -> ast.Module:
    """Return the code of a module; nobody changes what is returned."""
    return ast.parse(path.read_text("utf-8"))


def find_dotted(node: ast.expr) -> str:
    """Return a name with the dots in it; empty where the code has something else."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else ""


def read_prose(name: str) -> str:
    """Return a page without its blocks of code."""
    return FENCE.sub("", read(name))


def read_blocks(name: str, language: str) -> list[str]:
    """Return a page's blocks of code in one language."""
    return [body for kind, body in FENCE.findall(read(name)) if kind == language]


def read_section(name: str, heading: str) -> str:
    """Return what stands under a heading, up to the next of any level."""
    found = re.search(
        rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)",
        read_prose(name),
        re.MULTILINE | re.DOTALL,
    )
    assert found is not None, f"{name} has no heading {heading}"
    return found[1]


def read_table(name: str, first_column: str) -> list[list[str]]:
    """Return the rows of the one table whose first column has this name."""
    tables: list[list[list[str]]] = []
    lines = read_prose(name).splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if not line.startswith("|"):
            continue
        cells = [cell.strip() for cell in CELL.split(line)[1:-1]]
        if not before.startswith("|"):
            tables.append([])
        tables[-1].append(cells)
    (rows,) = [table for table in tables if table[0][0] == first_column]
    assert all(len(row) == len(rows[0]) for row in rows), "a row has too few cells"
    return rows[2:]


def read_code(text: str) -> list[str]:
    """Return what is written as code in a line or cell."""
    return [code.replace("\\|", "|") for code in CODE.findall(text)]


def name_anchor(heading: str) -> str:
    """Return the name that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def find_anchors(page: Path) -> set[str]:
    """Return the names of a page's headings; of another file there are none."""
    if page.suffix != ".md":
        return set()
    text = FENCE.sub("", page.read_text("utf-8"))
    return {name_anchor(each) for each in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
