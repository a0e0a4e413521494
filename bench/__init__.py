"""
The gate beside its peers, on the same work, in turn: what `make bench` runs.

Read `__main__`, then `cases`, `peers`, `measure`; README.md explains the tables.
"""
