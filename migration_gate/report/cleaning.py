"""
PostgreSQL's words, cleaned of what a file or a row says. Pure.

SPEC section 8: names and hints stay, quoted values, row data and SQL go. Works on
translated messages too, so it looks for quotation marks and never for words. What code
in the database raises may be made of rows, whatever its SQLSTATE: none of it is shown
but who raised it, and where.
"""

from __future__ import annotations

import re

from typing import Final

from migration_gate.report.errors import SqlFailure


# No such character, or bytes that are none: both name encodings, and bytes of a file.
ENCODING_STATES: Final = ("22P05", "22021")
# 23P01 and 44000 show whole rows too; class 08 what dblink was given as connection
# string; P0002 and P0003 the parameters of a query (plpgsql.print_strict_params).
ROW_DATA_CLASSES = ("22", "23", "44", "08", "P0002", "P0003")
QUOTES = '"«»„“”「」『』\u2039\u203a'  # as U+2039 and U+203A: they look like < and >
QUOTED = re.compile(f"[{QUOTES}].*[{QUOTES}]", re.DOTALL)
FIRST_QUOTE = re.compile(rf"(\s+at or near)?\s*[{QUOTES}].*", re.DOTALL)
FUNCTION_LINE = re.compile(r"^PL/pgSQL function .+? line \d+", re.MULTILINE)
COPY_LINE = re.compile(r"^COPY [^\s,]+, line \d+", re.MULTILINE)


# Functions of PostgreSQL's, its procedural languages' and its foreign servers' drivers
# that pass on words which are not theirs: pl_exec.c, plpy_elog.c, plpy_plpymodule.c,
# plperl.c, pltcl.c, plv8.cc, connection.c of postgres_fdw, dblink.c.
RAISING: Final = frozenset(
    {
        *("exec_stmt_raise", "exec_stmt_assert"),
        *("PLy_elog", "PLy_elog_impl", "PLy_output"),
        *("plperl_call_perl_func", "plperl_inline_handler", "do_util_elog"),
        *("throw_tcl_error", "pltcl_elog", "rethrow"),
        *("pgfdw_report_error", "pgfdw_report_internal", "dblink_res_error"),
    }
)
# raise_exception, assert_failure, external_routine_exception
RAISED_STATES: Final = ("P0001", "P0004", "38")
# The classes of errcodes.txt; any other is the choice of whoever raises it.
KNOWN_CLASSES: Final = frozenset(
    {
        *("00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z"),
        *("10", "20", "21", "22", "23", "24", "25", "26", "27", "28", "2B", "2D"),
        *("2F", "34", "38", "39", "3B", "3D", "3F", "40", "42", "44", "53", "54"),
        *("55", "57", "58", "72", "F0", "HV", "P0", "XX"),
    }
)
OWN_WORDS: Final = "assertion failed"  # of an ASSERT that gives none


def is_raised(failure: SqlFailure) -> bool:
    """Tell whether the words are those of code in the database, perhaps with data."""
    sqlstate = failure.sqlstate
    if sqlstate is None or failure.message == OWN_WORDS:
        return False
    return (
        failure.source in RAISING
        or sqlstate.startswith(RAISED_STATES)
        or sqlstate[:2] not in KNOWN_CLASSES
    )


def clean_message(sqlstate: str | None, message: str) -> str:
    """
    Cut from a primary message what may quote a value or the text of the file.

    Class 22 quotes values, but for what says which encoding lacks a character; 42601
    quotes what stands near a syntax error.
    """
    if sqlstate is None:
        return message
    if sqlstate.startswith("22") and sqlstate not in ENCODING_STATES:
        return QUOTED.sub("…", message)
    if sqlstate == "42601":
        return FIRST_QUOTE.sub("", message)
    return message


def clean_detail(sqlstate: str | None, detail: str | None) -> str | None:
    """Drop a detail that may hold row data."""
    if sqlstate is None or sqlstate.startswith(ROW_DATA_CLASSES):
        return None
    return detail


def clean_context(context: str | None) -> str | None:
    """Keep the lines of functions and of COPY, without the SQL between them."""
    if context is None:
        return None
    kept = [*COPY_LINE.findall(context), *FUNCTION_LINE.findall(context)]
    return "; ".join(kept) or None


def clean_failure(failure: SqlFailure, *, full: bool) -> dict[str, str | None]:
    """
    Return what of an error may be logged, under the names of the log's fields.

    Args:
        failure: What PostgreSQL said.
        full: GATE_LOG_DETAIL=full, everything as it is.
    """
    sqlstate = failure.sqlstate
    if full:
        return {
            "error_message": failure.message or "",
            "error_detail": failure.detail,
            "error_hint": failure.hint,
            "error_context": failure.context,
        }
    if is_raised(failure):
        context = clean_context(failure.context)
        who = (context or "code in the database").partition("; ")[0]
        return {
            "error_message": f"an error that {who} raises",
            "error_detail": None,
            "error_hint": None,
            "error_context": context,
        }
    return {
        "error_message": clean_message(sqlstate, failure.message or ""),
        "error_detail": clean_detail(sqlstate, failure.detail),
        "error_hint": failure.hint,
        "error_context": clean_context(failure.context),
    }
