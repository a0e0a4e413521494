"""Environment and arguments in, exit code out; nothing else."""

import os
import sys

from migration_gate.stop import hold_signals


if __name__ == "__main__":
    hold_signals()
    from migration_gate.commands import main  # a signal while it loads is kept

    # Everything is written and closed; Python would take its modules apart for 30 ms.
    os._exit(main(sys.argv[1:], os.environ))
