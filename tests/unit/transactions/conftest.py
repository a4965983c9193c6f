"""An application with a database, and a node beside it."""

import pytest
from support.transactions import Shop


@pytest.fixture
def shop(tmp_path):
    made = Shop(tmp_path, None, channels={"jobs": {"retry_backoff_min": 0, "attempts": 50}})
    yield made
    made.close()
