"""What a message is.

`names` (ids, lanes, heads: how things are called), `message` (the facts of a message, its states), `states` (the two
life cycles as tables), `envelope` (the stored bytes of a message), `backoff` (how long to rest after a failure).
Pure values and rules: no clock, no disk, no configuration, no plugin.
"""
