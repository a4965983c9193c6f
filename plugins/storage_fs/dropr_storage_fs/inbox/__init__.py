"""The inbox: a log for each queue, and a journal of leases and of what is not simply ready."""
