"""
One message to PostgreSQL on the connection that runs files. Never sees a plan.

``message`` is a message as its statements; ``worker`` is the connection; ``frame`` is
what a file runs under, and what clears up after it; ``compose`` puts the frame around a
file's text; ``exchange`` sends a message and judges its answers; ``failure`` tells
whose statement failed, and where, ``own_failure`` of the gate's own why, and
``describing`` what may be told; ``at_commit`` which statements a deferred check may
be about; ``invalid`` finds what a cut build has left; ``observer`` is told what a
rehearsed file did; ``watch`` is the run as the lock's connection sees it; ``stumble``
names the token of a syntax error; ``retry`` tries again while locks are not free;
``ready`` makes the connection ready.
"""
