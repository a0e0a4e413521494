"""
A plan on its way into the database.

Decides which files share a message, settles what is known to be committed, and takes
files that run outside a transaction unit by unit. Must not import ``commands``.

``runs`` applies migrations; ``settlement`` tracks which are known to be committed;
``preamble`` leaves out a dump's settings that this server does not have; ``outside``
applies a file outside a transaction, unit by unit; ``file_run`` is its way through
them, ``without_transaction`` runs a statement that cannot be in one, ``finishing``
writes the row at the end; ``settings_so_far`` tells which settings of a file a new
session has to be given again; ``catalogue`` asks for objects by name and by oid;
``indexes`` finds invalid ones; ``unfinished`` judges a statement whose end was not
seen.
"""
