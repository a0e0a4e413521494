"""Options, report header, and what no engine or no server means for a test."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import hypothesis
import pytest


pytest_plugins = (
    "tests.fix_postgres",
    "tests.fix_proxy",
    "tests.fix_pgbouncer",
    "tests.fix_gate",
    "tests.fix_identity",
    "tests.fix_image",
)

# A loaded machine is no fault of the code; pytest-timeout watches over the whole test.
hypothesis.settings.register_profile("default", deadline=None, print_blob=True)
hypothesis.settings.load_profile("default")

# A gate that is started by a run under nohup would ignore SIGHUP too: what is ignored
# is inherited, what has a handler is not.
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that needs Docker where no engine answers; in CI, fail it."""
    if item.get_closest_marker("docker") is None or has_engine(item.config):
        return
    if os.environ.get("CI") == "true":
        pytest.fail(
            "no Docker engine answers, and CI=true forbids to skip", pytrace=False
        )
    pytest.skip("no Docker engine answers")


HAS_ENGINE = pytest.StashKey[bool]()


def has_engine(config: pytest.Config) -> bool:
    """Ask once whether a Docker engine answers."""
    if HAS_ENGINE not in config.stash:
        command = ["docker", "version", "--format", "{{.Server.Version}}"]
        config.stash[HAS_ENGINE] = (
            shutil.which(command[0]) is not None
            and subprocess.run(command, check=False, capture_output=True).returncode
            == 0
        )
    return config.stash[HAS_ENGINE]
