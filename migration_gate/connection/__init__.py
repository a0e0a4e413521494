"""
Connect once, say why not, wait, and send one message. Knows no history.

``causes`` are why a connection could not be had, and whether waiting helps; ``texts``
tells them by what libpq says, ``remedies`` what to do; ``not_ready`` is the error, with
the cause that decides; ``connect`` connects once, reading secrets at each attempt;
``servers`` are those that the parameters name; ``opening`` opens a session on one of
them, by ``dialing``; ``limited`` is a connection whose waits have an end, and
``asking`` what a question at the start waits for; ``tls_files`` finds what TLS needs
and cannot be read; ``sqlstate`` asks a server that refuses for its SQLSTATE;
``pooled_sessions`` asks whether a session has what a pooler does not let it begin with;
``wait`` repeats an attempt until it succeeds; ``spares`` keeps connections from one
target of a fleet to the next, and ``scram`` what its logins hash; ``simple_query``
talks in messages of the simple protocol, answer by answer, and ``room`` sends a long
one; ``waits`` is how all of it waits, until a socket is ready or the run is to stop;
``refusals`` translates the driver's errors; ``qualified`` is how SQL of the gate's own
is written.
"""
