"""
The environment becomes Settings. Pure.

``settings`` are their values, ``known`` their names, defaults and meanings, ``parsing``
how they are written, ``environment`` reads and judges them; ``database`` is which
database, ``sources`` the settings that name it, ``reading`` what they hold, ``faults``
and ``slips`` what is wrong with them; ``connection_string`` takes a URL or a key=value
string apart; ``libpq`` are its parameters, ``drivers`` those of other programs, and
``understanding`` is what they mean here; ``durations`` are how a duration is written;
``variables`` are what files are filled with; ``spelling`` guesses which known word was
meant. ``tracing`` is the trace that a run belongs to, ``telemetry`` what is sent to
whom.
"""
