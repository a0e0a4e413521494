"""
Failures, staged through the real program: each last line alone.

``stage`` has the gate and its database; ``asked`` are the scenes of settings and files,
``reached`` those of the way to the database, ``ran`` those of what runs there; ``main``
prints the lines.
"""
