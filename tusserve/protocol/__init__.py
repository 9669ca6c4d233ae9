"""The protocol as pure values and functions: no I/O, no clock, no random number, no log line.

A request becomes a command (a codec reads it), a command meets a record (`decide` says what is to be
done), and what was done becomes an outcome (a codec renders it). Time and ids are arguments.
"""
