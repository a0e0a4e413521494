"""Tests of the room ``files``, or of what can be seen of it from outside."""
