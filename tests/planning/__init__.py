"""Tests of the room ``planning``, or of what can be seen of it from outside."""
