"""
What runs in a fork of the process that gates of tests are forked from.

That process imports this module, and with it what nearly every gate loads: a quarter of
a second, which is most of a short run. And what each command loads when it is called: a
gate that is to show what it loads is a process of its own.
"""

from __future__ import annotations

import gc
import os
import signal
import traceback

from collections.abc import Mapping
from multiprocessing.connection import Connection

import psycopg  # noqa: F401  # the gate loads these when it needs them
import structlog  # noqa: F401
import tenacity  # noqa: F401

import migration_gate.applying.outside
import migration_gate.commands.adopt
import migration_gate.commands.answers
import migration_gate.commands.apply
import migration_gate.commands.baseline
import migration_gate.commands.check
import migration_gate.commands.fleet.calls
import migration_gate.commands.fleet.looking
import migration_gate.commands.fleet.migrate
import migration_gate.commands.fleet.overview
import migration_gate.commands.fleet.recording
import migration_gate.commands.migrate
import migration_gate.commands.parser
import migration_gate.commands.recording
import migration_gate.commands.rehearse
import migration_gate.commands.resolve
import migration_gate.commands.rollback
import migration_gate.commands.status
import migration_gate.connection.scram
import migration_gate.history.copied
import migration_gate.history.many
import migration_gate.history.readers
import migration_gate.history.sole
import migration_gate.planning.naming
import migration_gate.planning.repeatables
import migration_gate.planning.squashing
import migration_gate.settings.variables  # noqa: F401

from migration_gate.commands.main import main
from migration_gate.commands.signals import SIGNALS


# Else a collection of all that is loaded falls due in each fork: fifty milliseconds.
gc.collect()
gc.freeze()


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
