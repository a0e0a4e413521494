"""Tests of the room ``history``, or of what can be seen of it from outside."""
