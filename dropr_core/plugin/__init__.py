"""Finding, checking and calling plugins.

`registry` finds implementations by entry point, imports only what the configuration names, and checks that the hook
and the class are what the contract asks for. `observers` guards their calls, so that none can stop or change anything.
Knows the contracts, and no implementation.
"""
