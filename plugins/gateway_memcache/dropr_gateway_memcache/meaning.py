"""What commands of a cache say that a queue cannot do, and why: the same words in all three protocols.

Owns these texts. They are for the person who moves a program: each names what to use instead.
"""

USE_SET = "a queue has no value under a key that could be {what}; 'set QUEUE' appends a message"
NO_MEANING: dict[str, str] = {
    "add": "'add' asks whether a key exists, and a queue always does; 'set QUEUE' appends a message",
    "replace": USE_SET.format(what="replaced"),
    "append": USE_SET.format(what="added to"),
    "prepend": USE_SET.format(what="added to"),
    "cas": USE_SET.format(what="compared"),
    "incr": USE_SET.format(what="counted up"),
    "decr": USE_SET.format(what="counted down"),
    "touch": "a message in a queue keeps the time of expiry with which it was set",
    "gat": "a message in a queue keeps the time of expiry with which it was set; use 'get QUEUE'",
    "gats": "a message in a queue keeps the time of expiry with which it was set; use 'get QUEUE'",
    "flush_all": "flush_all would remove every message of this node, and is not done; 'delete QUEUE' empties one queue",
}
LOGIN_FIRST = "unauthenticated: this door wants a user and a password first"

__all__ = ["LOGIN_FIRST", "NO_MEANING"]
