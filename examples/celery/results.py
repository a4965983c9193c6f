"""Asks what became of the orders, from another process and much later."""

from pathlib import Path

from tasks import app

for task_id in Path("orders.txt").read_text().split():
    print(app.AsyncResult(task_id).get(timeout=60))
