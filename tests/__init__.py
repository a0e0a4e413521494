"""The tests: one file per behaviour; fix_*.py are the fixtures."""
