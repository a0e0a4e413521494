"""Tests of the room ``execution``, or of what can be seen of it from outside."""
