"""
A project of django-tenants with the same ten files: its executor goes over all schemas.
"""

from __future__ import annotations

import os
import sys

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import psycopg

from psycopg.rows import TupleRow

from bench.install import CACHE, call
from bench.measure import Command
from bench.server import ROLE


PACKAGES: Final = ("django-tenants==4.0.1", "django==5.2.19", "psycopg[binary]")
PROJECT: Final = "django"
SETTINGS: Final = """
import os
SECRET_KEY = "bench"
USE_TZ = True
DATABASES = {"default": {
    "ENGINE": "django_tenants.postgresql_backend",
    "NAME": os.environ["PGDATABASE"], "HOST": os.environ["PGHOST"],
    "PORT": os.environ["PGPORT"], "USER": os.environ["PGUSER"],
    "PASSWORD": os.environ["PGPASSWORD"], "OPTIONS": {"sslmode": "disable"},
}}
DATABASE_ROUTERS = ("django_tenants.routers.TenantSyncRouter",)
SHARED_APPS = ("django_tenants", "django.contrib.contenttypes", "customers")
TENANT_APPS = ("work",)
INSTALLED_APPS = [*SHARED_APPS, *TENANT_APPS]
TENANT_MODEL, TENANT_DOMAIN_MODEL = "customers.Client", "customers.Domain"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TENANT_MULTIPROCESSING_MAX_PROCESSES = int(os.environ.get("AT_ONCE", "2"))
TENANT_MULTIPROCESSING_CHUNKS = 2
"""
CUSTOMERS: Final = """
from django.db import models
from django_tenants.models import DomainMixin, TenantMixin

class Client(TenantMixin):
    auto_create_schema = False

class Domain(DomainMixin):
    pass
"""
MIGRATION: Final = """
from django.db import migrations

class Migration(migrations.Migration):
    dependencies = {before!r}
    operations = [migrations.RunSQL({text!r})]
"""


def python() -> Path:
    """Return the interpreter that has django-tenants, installed where it is missing."""
    venv = CACHE / "python" / "django-tenants"
    program = venv / "bin" / "python"
    if not (venv / "bin" / "django-admin").exists():
        call(sys.executable, "-m", "venv", str(venv))
        call(str(program), "-m", "pip", "install", "--quiet", *PACKAGES)
    return program


def prepare(folder: Path, texts: Sequence[str]) -> None:
    """Write the project, where it is not there yet."""
    project = folder / PROJECT
    if project.exists():
        return
    for app in ("customers", "work"):
        (project / app / "migrations").mkdir(parents=True)
        for place in (project / app, project / app / "migrations"):
            (place / "__init__.py").touch()
    (project / "settings.py").write_text(SETTINGS, "utf-8")
    (project / "customers" / "models.py").write_text(CUSTOMERS, "utf-8")
    before: list[tuple[str, str]] = []
    for number, text in enumerate(texts, start=1):
        name = f"{number:04}_t{number}"
        (project / "work" / "migrations" / f"{name}.py").write_text(
            MIGRATION.format(before=before, text=text), "utf-8"
        )
        before = [("work", name)]


def make_shared(folder: Path, host: str, port: int, database: str) -> None:
    """Make the tables that list the tenants. Raises Missing."""
    for arguments in (("makemigrations", "customers"), ("migrate_schemas", "--shared")):
        command = to_command(folder, host, port, database, *arguments)
        call(*command.arguments, environ=command.environ, folder=command.folder)


def list_tenants(conn: psycopg.Connection[TupleRow], names: Sequence[str]) -> None:
    """List schemas that are there as tenants."""
    insert = "INSERT INTO customers_client (schema_name) SELECT unnest(%s::text[])"
    with conn:
        conn.execute(insert, [list(names)])


def over_all(
    folder: Path, host: str, port: int, database: str, at_once: int
) -> Command:
    """Return the command that migrates every tenant, with as many processes."""
    arguments = ("migrate_schemas", "--tenant", "--executor=multiprocessing")
    command = to_command(folder, host, port, database, *arguments)
    environ = {**command.environ, "AT_ONCE": str(at_once)}
    return replace(command, environ=environ)


def to_command(
    folder: Path, host: str, port: int, database: str, *arguments: str
) -> Command:
    """Return a command of the project's."""
    environ = {
        "PATH": os.defpath,
        "PYTHONPATH": str(folder / PROJECT),
        "DJANGO_SETTINGS_MODULE": "settings",
        "PGHOST": host,
        "PGPORT": str(port),
        "PGUSER": ROLE,
        "PGPASSWORD": ROLE,
        "PGDATABASE": database,
    }
    return Command(
        arguments=(str(python()), "-m", "django", *arguments),
        environ=environ,
        folder=folder / PROJECT,
    )
