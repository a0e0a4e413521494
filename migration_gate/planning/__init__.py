"""
Files and history side by side: what is pending, where they disagree. Pure.

``plan`` compares them, and ``agreement`` refuses where they disagree too much;
``repeatables`` tells which text of one is newer; ``squashing`` knows files that stand
for others; ``naming`` finds the migration that a person names; ``adoption`` compares
files with another tool's history, ``changesets`` makes rows of files of Liquibase's,
and ``renaming`` goes on by that tool's key; ``undoing`` tells what is to be undone;
``phases`` parts what comes before a deployment from what comes after it.
"""
