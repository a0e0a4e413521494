"""Tests of the room ``applying``, or of what can be seen of it from outside."""
