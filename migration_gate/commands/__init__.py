"""
One call of the program: arguments, signals, verdict, and a module for each command.

May import every room; nothing imports it but ``entrypoint.py``.

``main`` is what is the same for each command; ``signals`` are signals and GATE_TIMEOUT;
``steps`` is what commands share; ``migrate`` is the main path; ``check`` (with
``wait``), ``status`` (with ``plan``), ``resolve`` and ``new`` are the others;
``answers`` is what ``status`` and ``plan`` print.
"""
