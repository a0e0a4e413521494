"""
A fleet: one run over many schemas or databases, each a target with its own history.

The path of one target is that of a run without a fleet; what is beside each other are
whole targets, each in a thread of its own.

calls      which command does what over a fleet
targets    where the targets are listed, and the settings of each
crew       threads that work at targets, and who waits for them
outcomes   what came of each target, and the verdict over all

Loaded only where GATE_TARGETS is set.
"""
