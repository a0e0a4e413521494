"""Tests of the room ``report``, or of what can be seen of it from outside."""
