"""The user's own transactions: whose connection it is, which database it leads to, and the two tables of dropr in it.

`statements` is how SQL is said once for all drivers; one adapter for each library (`of_psycopg`, `of_sqlalchemy`,
`of_django`, `of_sqlite3`) makes a `Transaction` of what the user has, and `recognise` finds the adapter. `outbox_table`
and `inbox_table` own the tables, `outbox_layout` how they are made, `databases` connections of our own. Must not know
nodes, lanes or leases; no library of a database is imported before the user has one, or an outbox is configured.
"""
