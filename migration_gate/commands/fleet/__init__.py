"""
A fleet: one run over many schemas or databases, each a target with its own history.

The path of one target is that of a run without a fleet; what is beside each other are
whole targets, each in a thread of its own.

calls      which command does what over a fleet
lines      the list of a fleet in a file
targets    where the targets are listed, and the settings of each
groups     what is the same in many targets, told once
hints      what to do about a target, in words that fit a fleet
outcomes   what came of each target, and the verdict over all
away       servers that were waited for in vain: the next targets there try once
crew       threads that work at targets, and who waits for them
run        canaries, then all others, then what came or was left meanwhile
overview   where each target stands, seen in few round trips where that is enough
migrate    the command migrate
recording  the commands adopt, baseline and rollback
looking    the commands check, status and plan
target_lines  what status and plan say of each target
board      the page of a whole fleet, for status --html

Loaded only where GATE_TARGETS is set.
"""
