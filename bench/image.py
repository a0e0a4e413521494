"""
The gate as it ships: the image's files, unpacked, its entry point without a container.

What a container costs is the engine's and the same for every tool; what the image does
differently from a plain environment is its interpreter, options and modules.
"""

from __future__ import annotations

import json
import os
import shutil

from dataclasses import dataclass
from typing import Final

from bench.install import CACHE, ROOT, Missing, call
from bench.work import ALL_WORK, IMAGE_ROOT


TAG: Final = "gate-bench:shipped"
STAMP: Final = CACHE / "image.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What the image starts, and with which environment."""

    entry_point: tuple[str, ...]
    environ: tuple[tuple[str, str], ...]
    version: str


def unpack() -> Image:
    """
    Build the image and unpack it, unless the same one lies there.

    Raises:
        Missing: There is no Docker engine, no base image, or no right to chroot.
    """
    if os.geteuid() != 0:
        raise Missing("only root may run the image's files without a container")
    call("docker", "version")
    call("docker", "build", "--quiet", "--tag", TAG, str(ROOT))
    (details,) = json.loads(call("docker", "image", "inspect", TAG))
    if not STAMP.exists() or json.loads(STAMP.read_text("utf-8")) != details["Id"]:
        STAMP.unlink(missing_ok=True)
        replace_files()
        STAMP.write_text(json.dumps(details["Id"]), "utf-8")
    config = details["Config"]
    variables = (variable.partition("=") for variable in config["Env"] or ())
    labels = config.get("Labels") or {}
    return Image(
        entry_point=(*config["Entrypoint"], *(config["Cmd"] or ())),
        environ=tuple((name, value) for name, _, value in variables),
        version=labels.get("org.opencontainers.image.version", "unknown"),
    )


def replace_files() -> None:
    """Put the image's files in the place of those that are there; the work stays."""
    IMAGE_ROOT.mkdir(parents=True, exist_ok=True)
    for path in IMAGE_ROOT.iterdir():
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path != ALL_WORK:
            shutil.rmtree(path)
    archive = CACHE / "image.tar"
    container = call("docker", "create", TAG).strip().splitlines()[-1]
    try:
        call("docker", "export", "--output", str(archive), container)
    finally:
        call("docker", "rm", container)
    shutil.unpack_archive(archive, IMAGE_ROOT, filter="fully_trusted")
    archive.unlink()
