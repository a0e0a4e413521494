"""Tests of the room ``connection``, or of what can be seen of it from outside."""
