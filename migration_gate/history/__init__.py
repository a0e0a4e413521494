"""
The history table: recognise it, look at it, make it, write its rows.

Knows no plan. ``table`` judges whether a table is the history; ``trust`` whether a
table of the gate's can be trusted; ``tools`` names the tool whose table it is;
``catalogue`` asks for the facts about the tables of its name, and ``choice`` chooses
among them; ``look`` looks at it, ``many`` at those of many schemas, and ``glance`` at
one that is plain; ``likeness`` tells which tables are alike, ``recall`` what was said
of one that is, ``copied`` reads small ones, and ``plain_rows`` are what many have
alike, and ``lasting`` whether a session may serve the next target; ``foreign`` finds
other tools' histories, ``readers`` are how those are read that ``adopting`` takes over;
``hidden`` refuses where one may be that is not seen, ``busy`` sees whether the other
tool is applying; ``sole`` refuses where another table may be the history;
``user_tables`` tells a database that has tables from a new one; ``creation`` makes the
table, or makes it ours; ``rows`` are the statements that read and write it;
``guarding`` is what comes before a write or a read; ``making`` and ``writing`` say why
PostgreSQL did not let the gate make a table or write a row; ``progress`` is what of a
file outside a transaction is done; ``failures`` are why the last attempts failed;
``companions`` judges the tables that stand beside the history.
"""
