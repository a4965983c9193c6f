"""One half of a store at work: locks, journal, commits, recovery. Knows neither lanes nor queues."""
