"""The outbox: a log for each lane, and a journal of what is not simply queued."""
