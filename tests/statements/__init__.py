"""Tests of the room ``statements``, or of what can be seen of it from outside."""
