"""Tests of the room ``session``, or of what can be seen of it from outside."""
