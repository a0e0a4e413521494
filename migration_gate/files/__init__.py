"""
The folder and what a file says. Pure, but for the reading itself.

``migration`` is a file's name, checksum and directives; ``names`` tells what a name is;
``listing`` looks for what could be meant beside migrations, and ``journal`` for what
Drizzle knows of them; ``folder`` reads the folder, and ``reading`` a file;
``tool_checksums`` are those of other tools, and ``tool_facts`` what else those know of
files; ``marks`` finds the part that goes up in files of other tools, by what
``tool_marks`` reads, ``liquibase`` in Liquibase's; ``sections`` keeps that part;
``ways_back`` guards against marks of unknown tools; ``undoing`` finds what undoes a
migration; ``placeholders`` are filled in as Flyway and goose do it; ``units`` groups
statements into what is done as a whole or not at all; ``fitness`` tells what of a
statement the gate cannot run; ``stumbles`` names what PostgreSQL would only call a
syntax error; ``script`` is one pending migration, decoded, filled in and split;
``library`` gives the scripts of what is pending, each at its turn.
"""
