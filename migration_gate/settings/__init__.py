"""
The environment becomes Settings. Pure.

``settings`` are names, defaults and values; ``database`` is which database;
``connection_string`` takes a URL or a key=value string apart; ``libpq`` are its
parameters, ``drivers`` those of other programs, and ``understanding`` is what they mean
here; ``durations`` are how a duration is written; ``variables`` are what files are
filled with; ``spelling`` guesses which known word was meant. ``tracing`` is the trace
that a run belongs to, ``telemetry`` what is sent to whom.
"""
