-- Saved on Windows: byte order mark, CRLF, a lone CR.
SELECT 1;

COPY t FROM stdin;
1	;
\.
SELECT 'a'
'b;' -- c;, 2;
