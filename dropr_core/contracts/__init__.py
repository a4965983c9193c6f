"""What a plugin of each kind promises: Storage, Transport, Serializer, Handler, and what the host gives it.

One screen each; `records` holds the values that go in and out of a storage, `context` what every plugin gets.
Knows no implementation. The tests that hold a plugin to its contract are in testing/.
"""
