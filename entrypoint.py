"""Environment and arguments in, exit code out; nothing else."""

import _signal  # type: ignore[import-not-found]  # signal loads others first
import gc
import os
import sys


if __name__ == "__main__":
    # As PID 1 a process loses a signal that it has no handler for. One that is blocked
    # is kept by the kernel until stop.stoppable has installed them.
    _signal.pthread_sigmask(
        _signal.SIG_BLOCK, (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP)
    )
    # Modules that load make no garbage worth the looking: 6 of 85 ms in the image.
    gc.set_threshold(100_000)
    from migration_gate.commands.main import main

    # Everything is written and closed; Python would take its modules apart for 30 ms.
    os._exit(main(sys.argv[1:], os.environ))
