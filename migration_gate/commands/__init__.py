"""
One call of the program: arguments, signals, verdict, and a module for each command.

May import every room; nothing imports it but ``entrypoint.py``.

``main`` is what is the same for each command; ``calls`` has a row for each, and
``parser`` reads what a call gives beside its name; ``signals`` are signals and
GATE_TIMEOUT; ``steps`` is what commands share; ``migrate`` is the main path, and
``apply`` what it does when something is pending; ``check`` (with ``wait``), ``status``
(with ``plan``), ``rehearse``, ``resolve``, ``rollback`` (with ``rollback_plan``),
``adopt``, ``baseline`` and ``new`` are the others; ``recording`` writes what is said to
be applied, ``first_rows`` shows what would be; ``last_failure`` writes down, and tells,
why an attempt failed; ``answers`` is what commands print, ``page`` what ``status
--html`` does; ``telemetry`` is who follows a run from outside.
"""
