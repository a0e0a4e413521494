"""The pages agree with each other, with the tree, and with what the code is."""

from __future__ import annotations

import ast
import functools
import hashlib
import re
import tomllib

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from dev.postgres import VERSION
from migration_gate.files.listing import INSIDE
from migration_gate.files.names import classify
from migration_gate.report.cleaning import ROW_DATA_CLASSES
from migration_gate.settings.environment import POD_FIELDS, VARIABLE_PREFIX
from migration_gate.settings.known import SETTINGS
from migration_gate.settings.libpq import PG_VARIABLES
from migration_gate.settings.sources import POSTGRES_VARIABLES
from tests.project.pages import (
    CODE,
    END_OF_SENTENCE,
    LINK,
    MODULES,
    PACKAGE,
    PAGES,
    ROOT,
    find_anchors,
    find_dotted,
    name_anchor,
    parse,
    read,
    read_blocks,
    read_code,
    read_prose,
    read_table,
)


# https://www.apache.org/licenses/LICENSE-2.0.txt
APACHE_2_0 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
CHANGES = ("Security", "Removed", "Deprecated", "Added", "Changed", "Fixed")
# A page that is longer begins with a list of its headings.
SCREEN_LINES = 60
PARTS = "docs/development.md"
DATABASE_NAMES = ("DATABASE_URL", *POSTGRES_VARIABLES.values(), *PG_VARIABLES.values())
KNOWN_NAMES = {
    *(setting.name for setting in SETTINGS),
    *(f"{setting.name}_FILE" for setting in SETTINGS if setting.is_database),
    *(name + end for name in DATABASE_NAMES for end in ("", "_FILE")),
    *(name for name, _ in POD_FIELDS),
    "GATE_PORT",  # a link that Kubernetes makes for a Service
}


def test_every_page_is_there() -> None:
    """The pages that a stranger looks for."""
    wanted = {"README", "ARCHITECTURE", "CONTRIBUTING", "CHANGELOG", "SECURITY"}
    assert {f"{name}.md" for name in wanted} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_somewhere(page: str) -> None:
    """To a file of the project, and to a heading where it names one."""
    for link in LINK.findall(read_prose(page)):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), link
        assert target.resolve().is_relative_to(ROOT), link
        assert not anchor or anchor in find_anchors(target), link


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_that_is_named_exists(page: str) -> None:
    """In the text and in the commands to copy."""
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    commands = [*CODE.findall(read_prose(page)), *read_blocks(page, "sh")]
    named = re.findall(
        r"^(?:\w+=\S+ )*make ([a-z]+)", "\n".join(commands), re.MULTILINE
    )
    assert set(named) <= targets


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_that_is_named_exists(page: str) -> None:
    """A page does not keep a name that the code has dropped."""
    named = set(re.findall(r"\b(?:(?:GATE|POSTGRES)_[A-Z_]*|PG)[A-Z]\w*", read(page)))
    variables = {name for name in named if name.startswith(VARIABLE_PREFIX)}
    assert named - variables <= KNOWN_NAMES


@pytest.mark.parametrize("page", PAGES)
def test_a_line_has_one_sentence(page: str) -> None:
    """So that a diff shows the sentence that changed; a table's cells are no lines."""
    for line in read_prose(page).splitlines():
        if not line.startswith("|"):
            text = re.sub(r"^\s*(\d+\.|-) ", "", CODE.sub("`x`", line))
            assert not END_OF_SENTENCE.search(text), line


@pytest.mark.parametrize("page", [page for page in PAGES if "/" in page])
def test_a_page_longer_than_a_screen_begins_with_its_contents(page: str) -> None:
    """Each heading of the second level, in order, and a link to it."""
    if len(read(page).splitlines()) <= SCREEN_LINES:
        return
    headings = re.findall(r"^## (.+)$", read_prose(page), re.MULTILINE)
    start = read_prose(page).partition("\n## ")[0]
    contents = re.findall(r"^- \[(.+)\]\(#(.+)\)$", start, re.MULTILINE)
    assert [text for text, _ in contents] == headings
    assert [anchor for _, anchor in contents] == [name_anchor(h) for h in headings]


@pytest.mark.parametrize("page", PAGES)
def test_the_names_of_files_are_names_of_migrations(page: str) -> None:
    """Wherever a page shows one, in text, commands, SQL and logs."""
    names = set(re.findall(r"(?<![\w.*/-])\w[\w.-]*\.sql\b", read(page)))
    names -= {"NUMBER_words.sql", "NUMBER_words.up.sql", "psycopg.sql", *INSIDE}
    assert {name for name in names if classify(name).kind == "refused"} == set()


@pytest.mark.parametrize("page", PAGES)
def test_the_python_and_the_user_named_are_those_of_the_project(page: str) -> None:
    """pyproject.toml's oldest Python, and the Dockerfile's user."""
    for python in re.findall(r"Python (\d\.\d+) or newer", read(page)):
        assert f'requires-python = ">={python}"' in read("pyproject.toml")
    for uid in re.findall(r"\buid (\d+)", read_prose(page)):
        assert re.search(rf"^USER {uid}\b", read("Dockerfile"), re.MULTILINE)


def test_the_servers_named_are_those_tested() -> None:
    """By ``.ci/run``, and by ``make test`` on the embedded one."""
    page = read("docs/reliability.md")
    (line,) = re.findall(r"^- On PostgreSQL .*$", page, re.MULTILINE)
    versions = re.search(r'^SERVER_VERSIONS="(.*)"$', read(".ci/run"), re.MULTILINE)
    assert versions is not None
    tested = {*versions[1].split(), VERSION.partition(".")[0]}
    assert set(re.findall(r"\b\d\d\b", line)) == tested


@pytest.mark.parametrize("page", PAGES)
def test_every_drawing_is_of_a_kind_that_forges_draw(page: str) -> None:
    """By the first word; that the rest can be parsed is tried by hand."""
    kinds = {drawing.split()[0] for drawing in read_blocks(page, "mermaid")}
    assert kinds <= {"flowchart", "sequenceDiagram", "xychart-beta"}


def test_the_architecture_has_a_line_for_each_room() -> None:
    """And none for a room that is gone."""
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    rows = read_table("ARCHITECTURE.md", "room")
    assert sorted(read_code(row[0])[0] for row in rows) == sorted(rooms)


@pytest.mark.parametrize("room", sorted(PACKAGE.glob("*/__init__.py")), ids=str)
def test_a_room_names_its_modules(room: Path) -> None:
    """In the docstring that says what it is for: all that are there, but for one."""
    names = {path.stem for path in room.parent.glob("*.py")} - {"__init__"}
    docstring = ast.get_docstring(parse(room)) or ""
    named = set(re.findall(r"``(\w+)``", docstring))
    assert len(names) == 1 or names <= named


# They compose SQL, or take a record of a module that asks: nothing is sent from them.
PURE_BUT_FOR_AN_IMPORT = {"connection.qualified", "history.choice"}


def test_what_calls_itself_pure_is_held_to_it() -> None:
    """By the contract of import-linter that forbids driver, disk, clock and chance."""
    contracts = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]
    (sources,) = [
        contract["source_modules"]
        for contract in contracts["contracts"]
        if contract["name"].startswith("what decides is pure")
    ]
    held = tuple(source.removeprefix("migration_gate.") for source in sources)
    claims = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for path in MODULES
        if path.name != "__init__.py"
        and "Pure." in (ast.get_docstring(parse(path)) or "")
    }
    unheld = {
        name for name in claims if name not in held and name.split(".")[0] not in held
    }
    assert unheld == PURE_BUT_FOR_AN_IMPORT


def test_the_architecture_names_modules_that_exist() -> None:
    """In the paths of a migration, a setting and an error; a package is one."""
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    modules = {
        ".".join(p.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        for p in MODULES
    }
    dotted = {
        code
        for code in read_code(read_prose("ARCHITECTURE.md"))
        if re.fullmatch(r"[a-z]+\.[a-z_]+", code) and code.split(".")[0] in rooms
    }
    assert dotted
    assert dotted <= modules


def find_calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield the calls in a file, each with its dotted name."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Call):
            yield find_dotted(node.func), node


class Names(NamedTuple):
    """What a file's code calls, which attributes it mentions, and what it imports."""

    calls: frozenset[str]
    mentions: frozenset[str]
    imports: frozenset[str]


@functools.cache
def names_in(path: Path) -> Names:
    """Find the dotted names in a file's code, comments and docstrings apart."""
    calls: set[str] = set()
    mentions: set[str] = set()
    imports: set[str] = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Call):
            calls.add(find_dotted(node.func))
        elif isinstance(node, ast.Attribute):
            mentions.add(find_dotted(node))
        elif isinstance(node, ast.Import):
            imports.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imports.add(node.module or "")
    return Names(frozenset(calls), frozenset(mentions), frozenset(imports))


def files_that(*, call: str = "", mention: str = "", imports: str = "") -> set[str]:
    """Return the files whose code has a name that a pattern matches whole."""
    patterns = Names(*(frozenset(filter(None, [p])) for p in (call, mention, imports)))
    return {
        str(path.relative_to(ROOT))
        for path in (ROOT / "entrypoint.py", *MODULES)
        if any(
            re.fullmatch(pattern, name)
            for wanted, names in zip(patterns, names_in(path), strict=True)
            for pattern in wanted
            for name in names
        )
    }


def test_only_the_entry_point_exits() -> None:
    """But for the thread that ends a process whose main thread is stuck."""
    assert files_that(call=r"sys\.exit|exit|quit|SystemExit") == set()
    assert files_that(mention=r"os\._exit|os\.abort") == {
        "entrypoint.py",
        "migration_gate/commands/main.py",
    }


def test_only_the_entry_point_reads_the_environment() -> None:
    """``commands`` takes libpq's empty variables out of it; SDKs have theirs there."""
    login = "migration_gate/connection/login"
    assert files_that(mention=r"os\.environ|os\.getenv") == {
        "entrypoint.py",
        "migration_gate/commands/main.py",
        *(f"{login}/{provider}.py" for provider in ("aws", "azure", "google")),
    }


def test_connections_are_opened_in_one_place() -> None:
    """Those that stay, and the one that only asks why it is refused."""
    assert files_that(call=r".*\.connect|.*\.connect_start") == {
        "migration_gate/connection/dialing.py"
    }


def test_nothing_opens_a_socket_or_starts_a_process() -> None:
    """The database is all that the gate talks to, the resolver, and a collector."""
    sender = "migration_gate/report/telemetry.py"
    resolver = "migration_gate/connection/servers.py"
    assert files_that(mention=r"_?socket\..*") == {resolver, sender}
    assert files_that(mention=r"_?socket\.(socket|create_\w+|fromfd)") == {sender}
    assert files_that(imports="ssl") == {sender}
    network = r"(http|urllib|asyncio|subprocess|multiprocessing)(\..*)?"
    assert files_that(imports=network) == set()
    assert files_that(call=r"os\.(system|fork|popen|exec\w*|spawn\w*)") == set()


def test_only_the_log_writes() -> None:
    """To stdout, stderr and the termination log; ``waits`` wakes who waits."""
    assert files_that(call=r"print|sys\.std(out|err)\.write") == set()
    assert files_that(call=r"os\.write") == {
        "migration_gate/report/log.py",
        "migration_gate/connection/waits.py",
    }


def test_there_are_three_threads_beside_the_main_one() -> None:
    """
    One watches for signals, one asks for a token, one sends to a collector.

    A fleet has some of its own, each at one target.
    """
    assert files_that(call=r"threading\.Thread|Thread") == {
        "migration_gate/commands/fleet/crew.py",
        "migration_gate/commands/signals.py",
        "migration_gate/connection/login/tokens.py",
        "migration_gate/report/telemetry.py",
    }


def test_no_text_is_formatted_into_sql() -> None:
    """What becomes SQL is a constant, or a name that the code itself chose."""
    for path in MODULES:
        for name, call in find_calls(path):
            if name in {"sql.SQL", "SQL"}:
                assert not isinstance(call.args[0], ast.JoinedStr | ast.BinOp), path


def test_nothing_waits_for_the_gates_lock_inside_postgresql() -> None:
    """It is tried, in ``lock`` and nowhere else."""
    lock = (PACKAGE / "session/lock.py").read_text("utf-8")
    used = set(re.findall(r'"(pg_\w*advisory\w*)"', lock))
    assert used == {"pg_try_advisory_lock", "pg_try_advisory_xact_lock"}


def test_the_parts_of_every_check_are_those_of_its_script() -> None:
    """The page of development names what ``.ci/run`` takes."""
    usage = re.search(r"\.ci/run \[([a-z|]+)\]", read(".ci/run"))
    assert usage is not None
    parts = [read_code(row[0])[0] for row in read_table(PARTS, "part")]
    assert sorted(parts) == sorted(usage[1].split("|"))


def test_the_changelog_keeps_its_form() -> None:
    """Unreleased on top, the kinds of changes in order, a link in each entry."""
    headings = re.findall(r"^(##+) (.+)$", read("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == ("##", "[Unreleased]")
    kinds: list[str] = []
    for level, text in headings:
        if level == "##":
            kinds = []
        else:
            kinds.append(text)
            assert kinds == [kind for kind in CHANGES if kind in kinds], kinds
    entries = re.findall(r"^- .+$", read("CHANGELOG.md"), re.MULTILINE)
    assert entries
    assert [entry for entry in entries if not LINK.search(entry)] == []


def test_the_license_is_apache_2_0_in_full() -> None:
    """Byte for byte, as pyproject.toml says."""
    license_text = (ROOT / "LICENSE").read_bytes()
    assert hashlib.sha256(license_text).hexdigest() == APACHE_2_0
    assert 'license = "Apache-2.0"' in read("pyproject.toml")


def test_the_details_that_are_dropped_are_those_of_the_code() -> None:
    """SECURITY names the classes of errors whose detail may hold a row."""
    (line,) = re.findall(
        r"^- A detail is dropped .*$", read("SECURITY.md"), re.MULTILINE
    )
    named = re.findall(r"\b(P?\d{2,5}|P\d{4})\b", line)
    assert sorted(named) == sorted(ROW_DATA_CLASSES)


def find_patterns(tree: ast.Module) -> Iterator[str]:
    """Yield the constants of a module that may be patterns or parts of one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            text = node.value
            yield text.decode("latin-1") if isinstance(text, bytes) else text


@pytest.mark.parametrize(
    "module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_no_pattern_has_a_possessive_group(module: Path) -> None:
    """Python 3.11.0 to 3.11.4, Debian 12's too, matches them wrongly (gh-106052)."""
    tree = parse(module)
    groups = [text for text in find_patterns(tree) if re.search(r"\)[*?+]\+", text)]
    assert groups == []
