"""Environment and arguments in, exit code out; nothing else."""

import os
import sys

from migration_gate.commands import main


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
