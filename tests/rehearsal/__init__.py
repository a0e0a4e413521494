"""The room rehearsal, and the command."""
