"""Finding, checking and calling plugins.

`registry` finds implementations by entry point, imports only what the configuration names, checks that the hook and
the class are what the contract asks for, and guards calls of observers so that none can stop or change anything.
Knows the contracts, and no implementation.
"""
