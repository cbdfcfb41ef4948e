"""Is this number normal, and if not, why: a log held against the model, with a verdict by size and causes by evidence.

situation   what was run on what: from the log, the command line, or a reference design (and which of these)
limits      what wires allow, whatever the library does
shape       jumps in a curve that need no model to be seen
own         busbw's own result files: held against memory, or a schedule on a card
verdict     measured against modelled, size by size, then range by range
causes      why: one small function a cause, each with its evidence and what would confirm it
pairs       which end of a list of pairs is slow
words       all of it as text
"""
