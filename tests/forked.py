"""
What runs in a fork of the process that gates of tests are forked from.

That process imports this module, and with it what nearly every gate loads: a quarter of
a second, which is most of a short run.
"""

from __future__ import annotations

import os
import signal
import traceback

from collections.abc import Mapping
from multiprocessing.connection import Connection

import psycopg  # noqa: F401  # the gate loads these when it needs them
import structlog  # noqa: F401
import tenacity  # noqa: F401

import migration_gate.applying.outside
import migration_gate.commands.apply
import migration_gate.commands.check
import migration_gate.commands.migrate  # noqa: F401

from migration_gate.commands.main import main
from migration_gate.commands.signals import SIGNALS


def be_gate(
    argv: tuple[str, ...],
    environ: Mapping[str, str],
    folder: str,
    stdout: Connection,
    stderr: Connection,
) -> None:
    """In the fork: what entrypoint.py does, with the outputs that are given."""
    code = 99
    try:
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(stdout.fileno(), 1)
        os.dup2(stderr.fileno(), 2)
        stdout.close()
        stderr.close()
        os.environ.clear()
        os.environ.update(environ)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = main(argv, os.environ)
    except BaseException:  # noqa: BLE001  # whatever it is is the gate's
        traceback.print_exc()
    finally:
        os._exit(code)
