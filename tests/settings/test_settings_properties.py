"""Settings, for any value: the same meaning as libpq's, and no secret shown."""

from __future__ import annotations

from urllib.parse import quote

import psycopg
import pytest

from hypothesis import assume, example, given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from migration_gate.report.errors import SettingsError
from migration_gate.settings.connection_string import (
    MalformedError,
    parse_connection_string,
)
from migration_gate.settings.database import connection_parameters, database_settings
from migration_gate.settings.environment import from_environ, log_settings
from migration_gate.settings.known import SETTINGS
from migration_gate.settings.libpq import KEYWORDS


AWKWARD = "@:/?#%& '\"\\=+,;[]{}$`\t\né€"
# Letters that no fault, no hint and no field name has in a row.
SECRET_LETTERS = "QZX79é€"

passwords = st.text(alphabet=AWKWARD + "aZ09", min_size=1, max_size=20)
any_text = st.text(
    alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    min_size=1,
    max_size=20,
)
names = st.text(alphabet="abcé_-09", min_size=1, max_size=8)
hosts = st.sampled_from(["h", "db.example", "10.0.0.1", "[::1]", "%2Fvar%2Frun", ""])
ports = st.sampled_from(["", ":", ":1", ":65535"])
keywords = st.sampled_from(sorted(KEYWORDS))


def encode(text: str) -> str:
    """Percent-encode for any place of a URL."""
    return quote(text, safe="")


@st.composite
def urls(draw: st.DrawFn) -> str:
    """Return a URL that libpq takes."""
    credentials = draw(
        st.one_of(
            st.just(""),
            any_text.map(lambda user: encode(user) + "@"),
            st.tuples(any_text, any_text).map(lambda c: ":".join(map(encode, c)) + "@"),
        )
    )
    servers = draw(st.lists(st.tuples(hosts, ports).map("".join), max_size=3))
    database = draw(
        st.one_of(st.just(""), any_text.map(lambda name: f"/{encode(name)}"))
    )
    query = draw(st.lists(st.tuples(keywords, any_text.map(encode)).map("=".join)))
    scheme = draw(st.sampled_from(["postgres", "postgresql"]))
    return (
        f"{scheme}://{credentials}{','.join(servers)}{database}"
        f"{'?' if query else ''}{'&'.join(query)}"
    )


def quote_value(value: str) -> str:
    """Quote for a key=value string."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


pairs = st.tuples(
    keywords,
    st.sampled_from(["=", " = ", "=\n"]),
    st.one_of(any_text.map(quote_value), names),
).map("".join)
key_value_strings = st.lists(pairs, min_size=1, max_size=6).map(" ".join)

near_urls = st.lists(
    st.sampled_from(
        [
            *"@:/?#%&=[],. '\"+",
            "%2",
            "%41",
            "%00",
            "%C3",
            "u",
            "h",
            "5",
            "é",
            "sslmode=require",
            "ssl=true",
            "password=p",
            "host",
            "\n",
            "\xa0",
        ]
    ),
    max_size=14,
).map(lambda parts: "postgresql://" + "".join(parts))
near_key_value_strings = st.lists(
    st.sampled_from(
        [
            *"=' \\\t\n\x0b@:/x",
            "host",
            "port",
            "password",
            "requiressl",
            "hots",
            "\xa0",
            "host=h",
            "user='u'",
            "password='a b'",
            "\x1c",
            "postgres",
            "1",
        ]
    ),
    max_size=14,
).map("".join)


@given(urls())
def test_a_url_means_what_it_means_to_libpq(url: str) -> None:
    """Every part, in every encoding."""
    assert parse_connection_string(url).parameters == conninfo_to_dict(url)


@given(key_value_strings)
def test_a_key_value_string_means_what_it_means_to_libpq(text: str) -> None:
    """Quotes, backslashes and white space."""
    assert parse_connection_string(text).parameters == conninfo_to_dict(text)


def parse(text: str) -> tuple[dict[str, str] | None, str]:
    """Return the gate's parameters, or the rule that the text breaks."""
    try:
        return parse_connection_string(text).parameters, ""
    except MalformedError as malformed:
        return None, malformed.rule


@given(st.one_of(near_urls, near_key_value_strings, any_text))
@example("postgresql://[::1]%20/d")
@example("postgresql://u:p@h1,h2:5?")
@example("password='a'host=h")
@example("host\n=\n'h'port=1")
def test_what_libpq_refuses_is_refused(text: str) -> None:
    """What is taken means the same; a few things that libpq takes are not."""
    parameters, rule = parse(text)

    assert rule or parameters == conninfo_to_dict(text)


@given(st.one_of(near_urls, near_key_value_strings))
def test_what_only_the_gate_refuses_is_known(text: str) -> None:
    """White space, an @ or / out of place, or nothing at all."""
    try:
        conninfo_to_dict(text)
    except (psycopg.ProgrammingError, UnicodeDecodeError):
        return

    assert parse(text)[1] in {
        "",
        "is neither a URL nor a key=value string",
        "has white space around it",
        "contains white space",
        "has a quote at its end",
        'has two "@" before its path',
        'has an "@" or a "/" in its database, perhaps of the password',
    }


@given(passwords)
@example("@:/?#%& '\"\\é")
@example("p\nq\n")
@example("%41")
def test_any_password_works_through_each_way(password: str) -> None:
    """Percent-encoded in a URL, quoted in a key=value string, plain elsewhere."""
    environs = [
        {"DATABASE_URL": f"postgresql://u:{encode(password)}@h/d"},
        {"DATABASE_URL": f"postgresql://u@h/d?password={encode(password)}"},
        {"DATABASE_URL": f"user=u host=h password={quote_value(password)}"},
        {"DATABASE_URL": "postgresql://u@h/d", "POSTGRES_PASSWORD": password},
        {"DATABASE_URL": "postgresql://u@h/d", "PGPASSWORD": password},
        {"DATABASE_URL": "postgresql://u@h/d", "PGPASSWORD_FILE": "/f"},
        {"POSTGRES_HOST": "h", "POSTGRES_USER": "u", "POSTGRES_PASSWORD": password},
        {"POSTGRES_HOST": "h", "POSTGRES_USER": "u", "POSTGRES_PASSWORD_FILE": "/f"},
        {"PGHOST": "h", "PGPASSWORD": password},
        {"PGHOST": "h", "PGPASSWORD_FILE": "/f"},
    ]
    for environ in environs:
        database = from_environ(environ).database
        parameters = connection_parameters(database, lambda _: f"{password}\n")
        assert parameters["password"] == password
        # And on, through psycopg, to libpq.
        assert conninfo_to_dict(make_conninfo(**parameters)) == parameters


def outcome(environ: dict[str, str]) -> str:
    """Return all that is ever shown of an environment: its repr, or its faults."""
    try:
        return repr(from_environ(environ))
    except SettingsError as error:
        chained = (error.__cause__, error.__context__)
        return f"{error.message} {error.hint} {error.faults} {error!r} {chained}"


def shows(text: str, password: str) -> bool:
    """Tell whether a text holds four characters of a password in a row."""
    pieces = {password[i : i + 4] for i in range(len(password) - 3)}
    # A piece of punctuation alone may stand in a fault by its own right.
    return any(piece in text for piece in pieces if set(piece) & set(SECRET_LETTERS))


@given(
    st.text(alphabet=AWKWARD + SECRET_LETTERS * 3, min_size=4, max_size=24),
    st.sampled_from(
        [
            "{}",
            "postgresql://u:{}@h/d",
            "postgresql://{}@h/d",
            "postgresql://u:{}@h/d?schema=public",
            "postgresql://u:p@{}/d",
            "postgresql://u@h:{}/d",
            "postgresql://u@h/{}",
            "postgresql://u@h/d?password={}",
            "postgresql://u@h/d?password={}&schema=public",
            "postgresql://u@h/d?sslmode={}",
            "postgresql://u@h/d?schema={}&connection_limit={}",
            "postgresql://u@h/d?ssl={}&statement_timeout={}",
            "postgresql://u@h/d?x-migrations-table={}&x-{}=1&options[{}]=2",
            "jdbc:postgresql://h/d?user=u&password={}&sslfactory={}",
            "Server=h;User Id=u;Password={};{}=x",
            "postgresql+{}://u@h/d",
            "mysql://u:{}@h/d",
            "u:{}@h/d",
            '"postgresql://u:{}@h/d"',
            "host=h user=u password={}",
            "host=h user=u password='{}'",
            "host=h password={} user=u",
            "Host=h;Username=u;Password={}",
        ]
    ),
)
def test_no_fault_and_no_repr_shows_a_piece_of_a_url(secret: str, form: str) -> None:
    """Wherever the password stands, encoded or not, taken or refused."""
    text = form.format(*[secret] * form.count("{}"))
    assert not shows(outcome({"DATABASE_URL": text}), secret)


@given(
    st.text(alphabet=SECRET_LETTERS + "@/: ", min_size=4, max_size=24),
    st.sampled_from(
        [
            "POSTGRES_HOST",
            "POSTGRES_PORT",
            "POSTGRES_USER",
            "POSTGRES_PASSWORD",
            "POSTGRES_DB",
            "POSTGRES_SSL_MODE",
            "POSTGRES_PASS",
            "POSTGRES_PASSWORD_FILE",
            "PGSSLMODE",
            "PGPORT",
            "PGPASSWORD",
            "PGPASSWORD_FILE",
            "PGCONNECT_TIMEOUT",
        ]
    ),
)
def test_no_fault_and_no_repr_shows_a_value(secret: str, name: str) -> None:
    """Not even when it stands in the wrong variable."""
    environ = {"POSTGRES_HOST": "h", "POSTGRES_USER": "u", name: secret}

    assert not shows(outcome(environ), secret)


@given(
    st.text(alphabet=SECRET_LETTERS + "@/: ", min_size=4, max_size=24),
    st.sampled_from([setting.name for setting in SETTINGS]),
)
def test_no_fault_shows_the_value_of_a_gate_setting(secret: str, name: str) -> None:
    """Faults name the rule alone."""
    shown = outcome({"PGHOST": "h", name: secret})

    assert shown.startswith("Settings(") or not shows(shown, secret)


@given(
    st.dictionaries(
        st.sampled_from(
            [setting.name for setting in SETTINGS]
            + ["DATABASE_URL", "POSTGRES_HOST", "POSTGRES_PORT", "PGHOST", "PGPORT"]
            + ["GATE_X", "POSTGRES_DBNAME", "PGSERVICE", "DATABASE_URL_FILE"]
        ),
        st.one_of(any_text, near_urls, near_key_value_strings),
    )
)
def test_any_environment_is_taken_or_refused(environ: dict[str, str]) -> None:
    """Nothing but a SettingsError is ever raised; log settings never are refused."""
    log_settings(environ)

    assert outcome(environ)


@given(st.one_of(urls(), near_urls, near_key_value_strings), passwords)
def test_a_connection_string_in_a_file_is_judged_alike(
    text: str, password: str
) -> None:
    """The same parameters or the same rules, whichever form holds it."""
    assume(text and not text.endswith("\n"))
    inline, faults = database_settings({"DATABASE_URL": text, "PGPASSWORD": password})
    in_file, none = database_settings(
        {"DATABASE_URL_FILE": "/f", "PGPASSWORD": password}
    )
    assert inline is not None
    assert in_file is not None
    assert not none
    if faults:
        with pytest.raises(SettingsError) as caught:
            connection_parameters(in_file, lambda _: text)
        assert [f.rule for f in caught.value.faults] == [f.rule for f in faults]
    else:
        assert connection_parameters(inline, pytest.fail) == connection_parameters(
            in_file, lambda _: text
        )
