"""
One gate at a time: the lock's connection, the turn, who is in the way.

Never runs a file. ``session`` is a connection and what its last look showed;
``create_database`` makes the database where that is allowed; ``lock`` is the advisory
lock, tried and never waited in; ``marks`` tells how far a message is, in the name of
its session; ``activity`` asks about other backends; ``turn`` waits for the lock.
"""
