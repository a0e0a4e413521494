"""Variables for files, as the environment names them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from migration_gate.report.errors import SettingsError
from migration_gate.settings.environment import from_environ
from migration_gate.settings.variables import variable_values


def read(named: Mapping[str, str], file: str = "") -> dict[str, str]:
    """Return the values of variables, by their names; each file has the same text."""
    environ = {f"GATE_VAR_{name}": text for name, text in named.items()}
    settings = from_environ({"PGHOST": "h", **environ})
    return variable_values(settings.variables, lambda _: file)


def faults(named: Mapping[str, str]) -> list[str]:
    """Return what is wrong, without the remedies."""
    with pytest.raises(SettingsError) as caught:
        read(named)
    return [f"{fault.name} {fault.rule}" for fault in caught.value.faults]


def test_a_variable_has_the_name_after_the_prefix() -> None:
    """Case counts; an empty one is not set."""
    assert read({"a": "1", "Ab_2": "x y", "_c": "é", "FILE": "f", "d": ""}) == {
        "Ab_2": "x y",
        "FILE": "f",
        "_c": "é",
        "a": "1",
    }


def test_a_value_comes_from_a_file_without_its_last_line_end() -> None:
    """Others stay."""
    assert read({"a_FILE": "p"}, "a\nb\n\n") == {"a": "a\nb\n"}


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({"": "x"}, "GATE_VAR_ names no variable after GATE_VAR_"),
        ({"1a": "x"}, "GATE_VAR_1a names no variable after GATE_VAR_"),
        ({"a-b": "x"}, "GATE_VAR_a-b names no variable after GATE_VAR_"),
        ({"a.b": "x"}, "GATE_VAR_a.b names no variable after GATE_VAR_"),
        ({"A": "x", "a": "y"}, "GATE_VAR_a differs from GATE_VAR_A in case only"),
        ({"a": "x", "a_FILE": "p"}, "GATE_VAR_a is set together with GATE_VAR_a_FILE"),
        ({"a": "\udcff"}, "GATE_VAR_a is not UTF-8 text"),
    ],
)
def test_what_no_file_can_ask_for_is_a_fault(
    named: dict[str, str], expected: str
) -> None:
    """Named, and never with its value."""
    assert faults(named) == [expected]


def test_a_file_that_is_not_there_may_come() -> None:
    """It is waited for."""
    settings = from_environ({"PGHOST": "h", "GATE_VAR_a_FILE": "p"})

    def read_file(_path: str) -> str:
        raise FileNotFoundError

    with pytest.raises(SettingsError) as caught:
        variable_values(settings.variables, read_file)
    assert caught.value.may_come


def test_no_value_is_in_what_settings_show_of_themselves() -> None:
    """Nor the path of its file."""
    environ = {"PGHOST": "h", "GATE_VAR_a": "xyzzy", "GATE_VAR_b_FILE": "/plugh"}
    shown = repr(from_environ(environ))
    assert "GATE_VAR_a" in shown
    assert "xyzzy" not in shown
    assert "plugh" not in shown
