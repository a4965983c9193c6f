"""The shop: writes orders and sends them, in one transaction each. Each fifth customer changes his mind too late."""

import contextlib
import sqlite3

import dropr_core as dropr


class ChangedHisMind(Exception):
    """Raised when everything is written already."""


with dropr.open("shop.yaml") as node, contextlib.closing(sqlite3.connect("shop.db", timeout=30)) as connection:
    for number in range(1, 21):
        try:
            with connection:  # a transaction
                connection.execute("INSERT INTO orders VALUES (?, '')", (number,))
                message = node.send({"number": number}, channel="orders", connection=connection)
                connection.execute("UPDATE orders SET message = ? WHERE number = ?", (message.id, number))
                if number % 5 == 0:
                    raise ChangedHisMind
        except ChangedHisMind:
            print(f"order {number}: rolled back, and its message with it")
