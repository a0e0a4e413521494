"""
A gate between a database and an application.

Reading order: gate (the main path), settings and database, migration and folder,
plan, connect, history_table and history, lock, scripts and statements, apply,
verdict, logs; commands for everything that is not ``migrate``.
"""

__version__ = "0.1.0"
