"""The two databases, as an application's own migrations would make them."""

import contextlib
import sqlite3

with contextlib.closing(sqlite3.connect("shop.db")) as connection, connection:
    connection.execute("CREATE TABLE orders (number INTEGER PRIMARY KEY, message TEXT)")
with contextlib.closing(sqlite3.connect("stock.db")) as connection, connection:
    connection.execute("CREATE TABLE stock (pieces INTEGER)")
    connection.execute("INSERT INTO stock VALUES (1000)")
