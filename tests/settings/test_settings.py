"""What the GATE_ variables mean, and how their faults are reported."""

from __future__ import annotations

import pytest

from migration_gate.report.errors import SettingFault, SettingsError
from migration_gate.settings.database import connection_parameters
from migration_gate.settings.durations import parse_duration
from migration_gate.settings.environment import from_environ, log_settings
from migration_gate.settings.known import SETTINGS
from migration_gate.settings.settings import (
    Adopt,
    FailuresMax,
    HistoryTableName,
    LogSettings,
    Settings,
    Targets,
)
from migration_gate.settings.sources import DatabaseSettings, Source


DATABASE = {"PGHOST": "db"}


def faults_of(environ: dict[str, str]) -> tuple[SettingFault, ...]:
    """Return the faults of an environment that also names a database."""
    with pytest.raises(SettingsError) as caught:
        from_environ(DATABASE | environ)
    return caught.value.faults


def test_defaults_are_those_of_the_contract() -> None:
    """Without a GATE_ variable, SPEC section 3 sets every value."""
    assert from_environ(DATABASE) == Settings(
        database=DatabaseSettings(
            way="PG", sources=(Source(name="PGHOST", value="db"),)
        ),
        migrations="migrations",
        allow_empty=False,
        history_table=HistoryTableName(schema=None, table="schema_migrations"),
        adopt=Adopt("refuse"),
        baseline=None,
        timeout_s=None,
        wait_timeout_s=300,
        auth_grace_s=30,
        login="password",
        create_database=False,
        standby="wait",
        lock_wait_timeout_s=600,
        ddl_lock_timeout_s=2,
        ddl_retry_timeout_s=300,
        statement_timeout_s=0,
        role=None,
        changed="refuse",
        out_of_order="apply",
        ahead="allow",
        phase="all",
        targets=None,
        target=None,
        targets_at_once=8,
        canaries=0,
        failures_max=FailuresMax(None),
        rehearse_refuse=(),
        rehearse_sizes=None,
        log_format="auto",
        log_level="info",
        log_detail="safe",
        heartbeat_s=10,
        termination_log="/dev/termination-log",
        pod_fields=(),
        unknown_settings=(),
    )


def test_every_setting_can_be_set() -> None:
    """Each variable reaches its field."""
    settings = from_environ(
        DATABASE
        | {
            "GATE_MIGRATIONS": "/sql",
            "GATE_ALLOW_EMPTY": "yes",
            "GATE_HISTORY_TABLE": "ops.history",
            "GATE_ADOPT": "none",
            "GATE_BASELINE": "003_c",
            "GATE_TIMEOUT": "1h",
            "GATE_WAIT_TIMEOUT": "0",
            "GATE_AUTH_GRACE": "0s",
            "GATE_LOGIN": "Password",
            "GATE_STANDBY": "CHECK",
            "GATE_CREATE_DATABASE": "TRUE",
            "GATE_LOCK_WAIT_TIMEOUT": "1.5m",
            "GATE_DDL_LOCK_TIMEOUT": "500ms",
            "GATE_DDL_RETRY_TIMEOUT": "7",
            "GATE_STATEMENT_TIMEOUT": "9s",
            "GATE_ROLE": "app owner",
            "GATE_CHANGED": "warn",
            "GATE_OUT_OF_ORDER": "refuse",
            "GATE_AHEAD": "refuse",
            "GATE_PHASE": "before",
            "GATE_REHEARSE_REFUSE": "renames, drops-column",
            "GATE_REHEARSE_SIZES": "postgresql://reader@db/app",
            "GATE_LOG_FORMAT": "console",
            "GATE_LOG_LEVEL": "DEBUG",
            "GATE_LOG_DETAIL": "full",
            "GATE_TARGETS": "databases: SELECT datname FROM pg_database",
            "GATE_TARGET": "acme",
            "GATE_TARGETS_AT_ONCE": "3",
            "GATE_CANARIES": "2",
            "GATE_FAILURES_MAX": "5%",
            "GATE_HEARTBEAT": "1s",
            "GATE_TERMINATION_LOG": "/var/verdict",
            "POD_NAME": "web-1",
            "POD_NAMESPACE": "shop",
            "NODE_NAME": "node-3",
            "JOB_COMPLETION_INDEX": "0",
        }
    )

    assert settings == Settings(
        database=settings.database,
        migrations="/sql",
        allow_empty=True,
        history_table=HistoryTableName(schema="ops", table="history"),
        adopt=Adopt("none"),
        baseline="003_c",
        timeout_s=3600,
        wait_timeout_s=0,
        auth_grace_s=0,
        login="password",
        create_database=True,
        standby="check",
        lock_wait_timeout_s=90,
        ddl_lock_timeout_s=0.5,
        ddl_retry_timeout_s=7,
        statement_timeout_s=9,
        role="app owner",
        changed="warn",
        out_of_order="refuse",
        ahead="refuse",
        phase="before",
        targets=Targets("databases", "SELECT datname FROM pg_database"),
        target="acme",
        targets_at_once=3,
        canaries=2,
        failures_max=FailuresMax(5, is_percentage=True),
        rehearse_refuse=("renames", "drops-column"),
        rehearse_sizes=DatabaseSettings(
            way="DATABASE_URL",
            sources=(
                Source(name="GATE_REHEARSE_SIZES", value="postgresql://reader@db/app"),
            ),
        ),
        log_format="console",
        log_level="debug",
        log_detail="full",
        heartbeat_s=1,
        termination_log="/var/verdict",
        pod_fields=(
            ("pod_name", "web-1"),
            ("pod_namespace", "shop"),
            ("node_name", "node-3"),
            ("job_completion_index", "0"),
        ),
        unknown_settings=(),
    )


def test_the_table_lists_every_setting_and_its_default_parses() -> None:
    """SETTINGS is complete, in the order of the fields, and each default is usable."""
    others = {"database", "pod_fields", "unknown_settings", "variables"}
    others |= {"waits_for_turn", "gives_room", "shares_sessions"}
    others |= {"search_path", "options"}
    fields = [name for name in Settings._fields if name not in others]

    assert [setting.field for setting in SETTINGS] == fields
    for setting in SETTINGS:
        setting.parse(setting.default)
        assert setting.meaning


def test_the_real_database_may_be_named_in_a_file() -> None:
    """As DATABASE_URL may; a fault is told of the variable that was set."""
    name, files = "GATE_REHEARSE_SIZES", {"/sizes": "postgresql://reader:pw@db/app\n"}
    sizes = from_environ(DATABASE | {f"{name}_FILE": "/sizes"}).rehearse_sizes
    assert sizes is not None
    assert connection_parameters(sizes, files.__getitem__)["password"] == "pw"
    for text, fault in {
        "mysql://db/app": 'GATE_REHEARSE_SIZES_FILE has the scheme "mysql"',
        "postgresql://u@db:x/app": "GATE_REHEARSE_SIZES_FILE has a port that",
        "postgresql://db/app": "GATE_REHEARSE_SIZES_FILE has no user",
    }.items():
        files["/sizes"] = text
        with pytest.raises(SettingsError, match=fault):
            connection_parameters(sizes, files.__getitem__)
    both = {name: "postgresql://u@db/app", f"{name}_FILE": "/sizes"}
    assert [(f.name, f.rule) for f in faults_of(both)] == [
        (name, f"is set together with {name}_FILE")
    ]
    assert [(f.name, f.rule) for f in faults_of({name: "postgresql://db/app"})] == [
        (name, "has no user")
    ]


def test_empty_is_unset() -> None:
    """Compose and Kubernetes make empty variables; they count as not there."""
    empty = {setting.name: "" for setting in SETTINGS}
    empty["GATE_REHEARSE_SIZES_FILE"] = ""

    assert from_environ(DATABASE | empty) == from_environ(DATABASE)


@pytest.mark.parametrize(
    ("text", "duration_s"),
    [
        ("30", 30),
        ("30s", 30),
        ("5m", 300),
        ("500ms", 0.5),
        ("1h", 3600),
        ("1.5s", 1.5),
        ("0", 0),
        ("0ms", 0),
        (" 7s ", 7),
        ("2147483647ms", 2147483.647),
    ],
)
def test_a_duration_is_a_number_with_a_unit(text: str, duration_s: float) -> None:
    """A bare number is seconds."""
    assert parse_duration(text) == duration_s


@pytest.mark.parametrize(
    "text",
    [
        "-1",
        "-1s",
        "+1s",
        "s",
        "5 m",
        "5min",
        "5M",
        "1d",
        "1e3",
        "1m30s",
        "nan",
        "inf",
        "1.",
        ".5",
        "1,5s",
        "٣s",
        " ",
        "none",
    ],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    """Signs, other units, exponents and other digits are faults, named by rule."""
    assert faults_of({"GATE_WAIT_TIMEOUT": text}) == (
        SettingFault(
            name="GATE_WAIT_TIMEOUT",
            rule="is not a duration",
            remedy="Write a duration like 30, 30s, 5m, 500ms or 1h.",
        ),
    )


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("GATE_STATEMENT_TIMEOUT", "0.1ms", "is shorter than a millisecond"),
        ("GATE_STATEMENT_TIMEOUT", "2147483648ms", "is longer than 24 days"),
        ("GATE_WAIT_TIMEOUT", "9" * 400, "is longer than 24 days"),
        ("GATE_DDL_LOCK_TIMEOUT", "0", "is 0"),
        ("GATE_HEARTBEAT", "0s", "is 0"),
        ("GATE_ALLOW_EMPTY", "maybe", "is not true or false"),
        ("GATE_CHANGED", "ignore", "is not one of refuse, warn"),
        ("GATE_OUT_OF_ORDER", "allow", "is not one of apply, refuse"),
        ("GATE_AHEAD", "apply", "is not one of allow, refuse"),
        ("GATE_LOG_FORMAT", "text", "is not one of auto, json, console"),
        ("GATE_LOG_LEVEL", "warn", "is not one of debug, info, warning, error"),
        ("GATE_LOG_DETAIL", "all", "is not one of safe, full"),
        ("GATE_FAILURES_MAX", "5 %", "is not all, a number or a percentage"),
        ("GATE_FAILURES_MAX", "101%", "is more than 100%"),
        ("GATE_FAILURES_MAX", "100.001%", "is more than 100%"),
        ("GATE_MIGRATIONS", "a\0b", "contains a NUL character"),
        ("GATE_TERMINATION_LOG", "a\0b", "contains a NUL character"),
        ("GATE_ROLE", " app", "has white space around it"),
        (
            "GATE_ROLE",
            '"app',
            "has a double quote that is not closed or not doubled",
        ),
        ("GATE_ROLE", '""', "is an empty name or contains a NUL character"),
        ("GATE_ROLE", "é" * 32, "has a name longer than 63 bytes"),
        ("GATE_ROLE", "\udcff", "is not UTF-8 text"),
        ("GATE_HISTORY_TABLE", "\udcff", "is not UTF-8 text"),
        ("GATE_ADOPT", "goose:a.\udcff", "is not UTF-8 text"),
        ("GATE_TARGETS", "schemas:SELECT '\udcff'", "is not UTF-8 text"),
        ("GATE_BASELINE", "\udcff", "is not UTF-8 text"),
    ],
)
def test_a_value_that_breaks_a_rule_is_refused_by_rule(
    name: str, text: str, rule: str
) -> None:
    """A fault has the setting and the rule; the value is not in it."""
    assert [(fault.name, fault.rule) for fault in faults_of({name: text})] == [
        (name, rule)
    ]


@pytest.mark.parametrize("text", ["none", "0", "0s"])
def test_no_timeout_is_written_none_or_0(text: str) -> None:
    """GATE_TIMEOUT=0 is none, as for PostgreSQL's timeouts."""
    assert from_environ(DATABASE | {"GATE_TIMEOUT": text}).timeout_s is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("1", True),
        ("Yes", True),
        ("ON", True),
        ("off", False),
        ("false", False),
        ("0", False),
        ("no", False),
        ("true\n", True),
    ],
)
def test_booleans_are_taken_in_the_usual_words(text: str, *, value: bool) -> None:
    """Case and white space do not count."""
    environ = DATABASE | {"GATE_ALLOW_EMPTY": text}

    assert from_environ(environ).allow_empty is value


@pytest.mark.parametrize(
    ("text", "schema", "table"),
    [
        ("history", None, "history"),
        ("History", None, "History"),
        ("ops.history", "ops", "history"),
        ('"my ops"."a.b"', "my ops", "a.b"),
        ('ops."say ""hi"""', "ops", 'say "hi"'),
        ("schéma.täble", "schéma", "täble"),
        ("t" * 63, None, "t" * 63),
    ],
)
def test_the_history_table_is_taken_as_it_is_written(
    text: str, schema: str | None, table: str
) -> None:
    """Quotes only hold what could not stand without them; nothing is folded."""
    settings = from_environ(DATABASE | {"GATE_HISTORY_TABLE": text})

    assert settings.history_table == HistoryTableName(schema=schema, table=table)


@pytest.mark.parametrize(
    "text",
    [
        "a.b.c",
        ".a",
        "a.",
        ".",
        "a b",
        '"a',
        'a"b',
        '"a"b',
        '""',
        '"".a',
        "t" * 64,
        "a;drop\ttable",
        'ops."' + "é" * 32 + '"',
    ],
)
def test_a_malformed_history_table_is_refused(text: str) -> None:
    """At most two parts, none of them empty or over 63 bytes."""
    assert [fault.name for fault in faults_of({"GATE_HISTORY_TABLE": text})] == [
        "GATE_HISTORY_TABLE"
    ]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("GATE_TIMOUT", "GATE_TIMEOUT"),
        ("GATE_WAITTIMEOUT", "GATE_WAIT_TIMEOUT"),
        ("GATE_LOGLEVEL", "GATE_LOG_LEVEL"),
        ("GATE_MIGRATION", "GATE_MIGRATIONS"),
        ("GATE_AHAED", "GATE_AHEAD"),
        ("GATE_ROLES", "GATE_ROLE"),
        ("GATE_Log_Level", "GATE_LOG_LEVEL"),
        ("GATE_STATMENT_TIMEOUT", "GATE_STATEMENT_TIMEOUT"),
        ("GATE_CANARY", "GATE_CANARIES"),
        ("GATE_TARGETS_FILE", "GATE_TARGETS"),
    ],
)
def test_a_slip_of_the_pen_is_a_fault_that_suggests_the_name(
    name: str, meant: str
) -> None:
    """A setting that would be passed over in silence closes the gate."""
    assert faults_of({name: "x"}) == (
        SettingFault(
            name=name, rule="is not a setting", remedy=f"Did you mean {meant}?"
        ),
    )


def test_other_unknown_names_are_kept_for_a_warning() -> None:
    """An older image starts under a newer manifest; empty ones do not count."""
    environ = {"GATE_PARALLEL": "4", "GATE_CODE": "x", "GATE_NEW": "", "GATE": "1"}

    settings = from_environ(DATABASE | environ)

    assert settings.unknown_settings == ("GATE_CODE", "GATE_PARALLEL")


def test_service_links_are_ignored() -> None:
    """Kubernetes makes these for a Service named gate, or gate-…."""
    links = {
        "GATE_SERVICE_HOST": "10.0.0.1",
        "GATE_SERVICE_PORT": "80",
        "GATE_SERVICE_PORT_HTTP": "80",
        "GATE_PORT": "tcp://10.0.0.1:80",
        "GATE_PORT_80_TCP": "tcp://10.0.0.1:80",
        "GATE_PORT_80_TCP_PROTO": "tcp",
        "GATE_PORT_80_TCP_PORT": "80",
        "GATE_PORT_80_TCP_ADDR": "10.0.0.1",
        "GATE_ROLES_SERVICE_HOST": "10.0.0.2",
        "GATE_DNS_PORT": "udp://10.0.0.3:53",
    }

    assert from_environ(DATABASE | links) == from_environ(DATABASE)


def test_all_faults_are_reported_together() -> None:
    """One start shows everything that has to be mended."""
    environ = {
        "DATABASE_URL": "postgresql://h:x/d",
        "GATE_TIMEOUT": "soon",
        "GATE_AHEAD": "no",
        "GATE_LOGLEVEL": "debug",
    }

    with pytest.raises(SettingsError) as caught:
        from_environ(environ)

    assert caught.value.message == (
        "DATABASE_URL has a port that is not a number from 1 to 65535;"
        " DATABASE_URL has no user;"
        " GATE_LOGLEVEL is not a setting;"
        " GATE_TIMEOUT is not a duration;"
        " GATE_AHEAD is not one of allow, refuse"
    )


def test_new_needs_no_database() -> None:
    """Nor are the settings that name one judged then."""
    settings = from_environ({"DATABASE_URL": "nonsense"}, needs_database=False)

    assert settings.database == DatabaseSettings(way="PG", sources=())


def test_log_settings_take_the_default_where_they_are_malformed() -> None:
    """So that a settings error can be logged in the form that was asked for."""
    environ = {
        "GATE_LOG_FORMAT": "console",
        "GATE_LOG_LEVEL": "loud",
        "GATE_TERMINATION_LOG": "/dev/null",
        "GATE_TIMEOUT": "soon",
        "GATE_TARGET": "tenant_7",
        "POD_NAME": "web-1",
    }

    assert log_settings(environ) == LogSettings(
        log_format="console",
        log_level="info",
        log_detail="safe",
        termination_log="/dev/null",
        target="tenant_7",
        pod_fields=(("pod_name", "web-1"),),
    )
