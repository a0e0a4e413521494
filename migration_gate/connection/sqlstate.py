"""
Ask a server that refuses a connection for the SQLSTATE of its refusal.

psycopg and libpq keep it to themselves, and the text may be in any language. One more
attempt is made with libpq's trace on, which shows the fields of the answer.
"""

from __future__ import annotations

import os
import re
import time

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from migration_gate.connection.dialing import DialError, dial


TIMEOUT_S: Final = 2.0
CODE: Final = re.compile(rb'\tErrorResponse\t.*? C "([0-9A-Z]{5})"')


def ask_sqlstate(parameters: Mapping[str, str]) -> str | None:
    """
    Return the SQLSTATE with which a connection is refused; None where none came.

    Args:
        parameters: Those of one server, with its hostaddr: nothing is resolved here.
    """
    if not hasattr(os, "memfd_create"):  # Linux has it
        return None
    trace = os.memfd_create("trace")
    try:
        with suppress(DialError):
            dial(parameters, until_s=time.monotonic() + TIMEOUT_S, trace=trace).finish()
        os.lseek(trace, 0, os.SEEK_SET)
        found = CODE.search(os.read(trace, 65536))
    except OSError:
        return None
    finally:
        os.close(trace)
    return found[1].decode() if found else None
