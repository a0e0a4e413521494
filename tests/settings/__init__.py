"""Tests of the room ``settings``, or of what can be seen of it from outside."""
