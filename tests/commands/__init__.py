"""Tests of the room ``commands``, or of what can be seen of it from outside."""
