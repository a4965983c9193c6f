"""A store's schema at work: connections, transactions, troubles. Knows no tables beyond `meta`."""
