"""
What the gate says: errors, outcomes, events, words, verdict, log.

Imports no other room. ``errors`` is the tree of what closes the gate; ``outcomes`` are
exceptions that the run acts on; ``quoting`` writes identifiers for people; ``cleaning``
is PostgreSQL's words without row data and SQL, and ``redaction`` any words without the
values of variables; ``remedies`` tells what to do about an error of PostgreSQL's;
``findings`` names what a rehearsal finds; ``verdict`` makes the last line's fields;
``events`` names each line; ``console`` writes a line for a person, ``tables`` many; and
``log`` writes lines. ``spans`` and
``metrics`` are a run as OpenTelemetry has it, in the form of ``otlp``; ``telemetry``
keeps what they are made of, and sends them.
"""
