"""
A gate between a database and an application.

Eleven rooms on nine floors, each imports only what stands below it. Reading order, from
above: commands (``migrate`` is the main path), applying, execution, session, planning,
history, files, connection, settings, statements, report.
"""

__version__ = "0.1.0"
