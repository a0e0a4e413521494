"""
What a migration does to what is there already, seen where it does no harm.

``facts`` are what was seen, as values; ``questions`` are what is asked between
statements, ``recorder`` keeps what is answered, and ``comparing`` tells what a
statement did from the answers before and after it; ``watching`` looks at a statement
that runs alone, and ``holding`` holds it up meanwhile; ``wording`` is what the text
alone tells, and ``judging`` makes findings of both; ``sizes`` asks the real database
how large its tables are, and ``estimate`` how long it may take there; ``reports`` is a
report as a value, and ``forms`` are how people read it; ``alone`` refuses a database
that others use. Never applies anything.
"""
