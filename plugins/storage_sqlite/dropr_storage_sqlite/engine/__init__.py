"""One file of a store at work: connections, transactions, troubles. Knows no tables beyond `meta`."""
