"""
The image with an extra: it logs in as the cloud lets it, and holds what that needs.

Built for each extra; the endpoints and the server are those of the other tests, on the
host's own network.
"""

from __future__ import annotations

import json
import re
import shutil

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.fix_image import BUILD_S, HARDENED, Ended, build, docker
from tests.identities import WAYS, Servers, refuse, servers, staged
from tests.project.pages import read_table


pytestmark = [pytest.mark.docker, pytest.mark.timeout(BUILD_S)]
PROVIDERS = {"azure": "Azure,", "aws": "AWS,", "google": "Google,"}
EXTRAS = tuple(PROVIDERS)
SIZE_TOLERANCE_MB = 2
# Looked at, and compatible with passing the image on.
LICENCES = {
    "azure-core": "MIT",
    "azure-identity": "MIT",
    "botocore": "Apache-2.0",
    "certifi": "MPL-2.0",
    "cffi": "MIT-0",
    "charset-normalizer": "MIT",
    "cryptography": "Apache-2.0 OR BSD-3-Clause",
    "google-auth": "Apache 2.0",
    "idna": "BSD-3-Clause",
    "jmespath": "MIT",
    "msal": "MIT",
    "msal-extensions": "MIT License",
    "psycopg": "LGPL-3.0-only",
    "psycopg-binary": "LGPL-3.0-only",
    "PyJWT": "MIT",
    "pyasn1": "BSD-2-Clause",
    "pyasn1_modules": "BSD",
    "pycparser": "BSD-3-Clause",
    "python-dateutil": "Dual License",  # Apache-2.0, and BSD-3-Clause before 2017
    "requests": "Apache-2.0",
    "six": "MIT",
    "structlog": "MIT OR Apache-2.0",
    "tenacity": "Apache-2.0",
    "typing_extensions": "PSF-2.0",
    "urllib3": "MIT",
}
LIST = """
import glob
for file in glob.glob("/app/*.dist-info/METADATA"):
    print(open(file).read().partition("\\n\\n")[0])
"""


@pytest.fixture(scope="module", params=EXTRAS)
def extra(request: pytest.FixtureRequest) -> str:
    """Return the name of an extra, its image built."""
    name: str = request.param
    build("--build-arg", f"EXTRAS={name}", tag=image_of(name))
    return name


@pytest.fixture(scope="module")
def both() -> Iterator[Servers]:
    """Start a server that knows tokens, and one that trusts who stands before it."""
    with servers() as started:
        yield started


def image_of(extra: str) -> str:
    """Return the name of an extra's image."""
    return f"migration-gate:{extra}"


def run(extra: str, environ: Mapping[str, str], folder: Path) -> Ended:
    """Run a gate hardened, on the host's network, with its files from a folder."""
    mounted = {
        name: mount(value, folder) if value.startswith("/") else value
        for name, value in environ.items()
    }
    given = [f"--env={name}={value}" for name, value in mounted.items()]
    done = docker(
        *("run", "--rm", "--network", "host", "--user", "65532:65532", *HARDENED),
        *("--volume", f"{folder}:{folder}:ro", *given, image_of(extra), "wait"),
        check=False,
    )
    return Ended(exit_code=done.returncode, stdout=done.stdout, stderr=done.stderr)


def mount(path: str, folder: Path) -> str:
    """Copy a file to where the gate's user can read it."""
    target = folder / Path(path).name
    if Path(path) != target:
        shutil.copyfile(path, target)
    target.chmod(0o644)
    return str(target)


def test_an_image_with_an_extra_logs_in_in_each_of_its_ways(
    extra: str, both: Servers
) -> None:
    """What an SDK loads is there, for a refusal too, and it writes nothing."""
    for name, way in WAYS.items():
        if not name.startswith(PROVIDERS[extra]):
            continue
        with staged(both) as stage:
            stage.folder.chmod(0o755)
            environ, endpoint = way.prepare(stage)
            ended = run(extra, environ, stage.folder)
            closed = run(extra, {**environ, **refuse(way, endpoint)}, stage.folder)
        assert ended.exit_code == 0, (name, ended.stdout)
        assert ended.stderr == "", name
        verdict = closed.events[-1]
        assert (closed.exit_code, verdict["reason"]) == way.refused, (name, verdict)
        assert "cannot be used as" not in verdict["error_message"], verdict


def test_an_image_with_an_extra_is_as_large_as_the_page_says(extra: str) -> None:
    """Of an SDK only what is imported and read."""
    size = json.loads(docker("inspect", image_of(extra)).stdout)[0]["Size"]
    rows = read_table("docs/identities.md", "`EXTRAS`")
    (told,) = [int(row[2]) for row in rows if row[0] == f"`{extra}`"]
    assert abs(size / 1e6 - told) < SIZE_TOLERANCE_MB


def test_what_an_extra_brings_has_licences_that_are_known(extra: str) -> None:
    """What nobody has looked at does not get in; the public roots are there."""
    python = ("run", "--rm", *HARDENED, "--entrypoint", "/usr/local/bin/python3")
    listed = docker(*python, image_of(extra), "-ESc", LIST).stdout
    names = re.findall(r"^Name: (\S+)$", listed, re.MULTILINE)
    licences = re.findall(r"^License(?:-Expression)?: (.+)$", listed, re.MULTILINE)
    found = dict(zip(names, licences, strict=True))
    assert found == {name: LICENCES[name] for name in names}
    roots = (
        "import sys; sys.path.insert(0, '/app'); import ssl;"
        " from botocore.httpsession import where"
        if extra == "aws"
        else "import sys; sys.path.insert(0, '/app'); import ssl;"
        " from certifi import where"
    )
    program = f"{roots}; ssl.create_default_context(cafile=where())"
    assert docker(*python, image_of(extra), "-ESc", program).returncode == 0


def test_the_plain_image_says_which_image_it_needs(image: str) -> None:
    """At once, and for each of them."""
    for extra in EXTRAS:
        settings = {"GATE_LOGIN": extra, "PGHOST": "nowhere.invalid", "PGUSER": "app"}
        given = [f"--env={name}={value}" for name, value in settings.items()]
        done = docker("run", "--rm", *given, image, "wait", check=False)
        verdict = json.loads(done.stdout.splitlines()[-1])
        assert (done.returncode, verdict["reason"]) == (1, "settings")
        assert f"--build-arg EXTRAS={extra}" in verdict["hint"]
