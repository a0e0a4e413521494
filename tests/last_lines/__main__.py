"""
Stage failures through the real program, and print each last line alone.

    python -m tests.last_lines [NAME]...

For a reader who has nothing else: does it say what is wrong, where, and what to do?
"""

from __future__ import annotations

import json
import sys
import tempfile

from contextlib import ExitStack
from pathlib import Path
from typing import Final

from dev.postgres import Server
from tests.fix_gate import Gate
from tests.fix_postgres import Databases, look_at
from tests.last_lines import asked, ran, reached
from tests.last_lines.stage import Scenes, Stage


SCENES: Final[Scenes] = {**asked.SCENES, **reached.SCENES, **ran.SCENES}


def main(names: list[str]) -> int:
    """Stage each, and print its line; 1 where one of them opened the gate."""
    opened = 0
    with ExitStack() as always:
        server = always.enter_context(Server("last-lines"))
        shared = look_at(server.conninfo, server)
        folder = Path(always.enter_context(tempfile.TemporaryDirectory()))
        for number, (name, scene) in enumerate(SCENES.items()):
            if names and name not in names:
                continue
            own = folder / str(number)
            own.mkdir()
            with ExitStack() as stack, Databases(server=shared) as databases:
                gate = Gate(own)
                stack.callback(gate.close)
                run = scene(Stage(gate, databases.create(), databases, stack))
            opened += run.exit_code == 0
            verdict = json.loads(run.termination_log)
            text = f"{verdict['message']}\n      {verdict.get('hint', '(no hint)')}"
            sys.stdout.write(f"{number + 1:2} {name}\n   {text}\n")
            sys.stdout.flush()
    return int(opened > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
