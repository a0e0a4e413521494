"""The README is a welcome: short, true, and the way to every page."""

from __future__ import annotations

import re

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from migration_gate.settings.environment import from_environ
from tests.project.pages import ROOT, read, read_blocks, read_table


PAGE = "README.md"
MOST_LINES = 150


def test_the_welcome_is_short() -> None:
    """Two screens; what is longer has a page of its own."""
    assert len(read(PAGE).splitlines()) <= MOST_LINES


def test_a_run_is_six_lines_that_end_in_the_two_exit_codes() -> None:
    """The whole of it, before anything else."""
    lines = re.findall(r"^\d\. .+$", read(PAGE), re.MULTILINE)
    assert len(lines) == 6
    assert [code for code in ("**0**", "**1**") if code in lines[-1]] == [
        "**0**",
        "**1**",
    ]


def test_every_page_can_be_reached_from_the_welcome() -> None:
    """Nobody has to list a folder to find one."""
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)", read(PAGE)))
    assert linked == {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}


def test_the_faults_survived_are_those_of_the_table() -> None:
    """The welcome repeats its last line."""
    assert read_table(PAGE, "fault") == read_table("docs/reliability.md", "fault")[-1:]


def test_the_chart_shows_a_whole_run_of_the_bench() -> None:
    """Its newest, the case that it names."""
    (chart,) = [b for b in read_blocks(PAGE, "mermaid") if b.startswith("xychart")]
    names = re.findall(r'"([^"]+)"', re.findall(r"x-axis \[(.*)\]", chart)[0])
    shown = re.findall(r"[\d.]+", re.findall(r"bar \[(.*)\]", chart)[0])
    newest = max((ROOT / "bench/results").glob("20*.md")).read_text("utf-8")
    section = re.findall(
        r"^## 200 small migrations applied, 20 ms away\n(.*?)^## ",
        newest,
        re.MULTILINE | re.DOTALL,
    )
    measured = dict(
        re.findall(r"^\| ([^|]+) \| \d+ \| \*\*(.*)\*\* ", section[0], re.MULTILINE)
    )
    names[names.index("migration-gate")] = "gate (image)"
    assert dict(zip(names, shown, strict=True)) == {n: measured[n] for n in names}


def find_variables(node: object) -> Iterator[tuple[str, str]]:
    """Yield the environment variables of the gate in a manifest."""
    if isinstance(node, list):
        for each in node:
            yield from find_variables(each)
    elif isinstance(node, Mapping):
        for key, inner in node.items():
            if key == "env":
                yield from ((each["name"], each["value"]) for each in inner)
            elif key == "environment":
                yield from inner.items()
            else:
                yield from find_variables(inner)


def read_manifests() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the Compose file, and the part of a Deployment."""
    compose, deployment = map(yaml.safe_load, read_blocks(PAGE, "yaml"))
    return compose, deployment


def test_the_manifests_have_settings_that_the_gate_takes() -> None:
    """What a reader copies does not close the gate by a slip."""
    compose, deployment = read_manifests()
    for manifest in (compose["services"]["gate"], deployment):
        environ = dict(find_variables(manifest))
        assert environ
        from_environ(environ)


def test_the_manifests_let_nothing_start_after_a_closed_gate() -> None:
    """An init container, and the condition without a way around it."""
    compose, deployment = read_manifests()
    pod = deployment["spec"]["template"]["spec"]
    assert [each["name"] for each in pod["initContainers"]] == ["gate"]
    assert compose["services"]["app"]["depends_on"] == {
        "gate": {"condition": "service_completed_successfully"}
    }
    assert compose["services"]["gate"]["environment"]["GATE_LOG_FORMAT"] == "console"
