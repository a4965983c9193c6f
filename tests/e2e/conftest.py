"""An angel for a test; what it started is gone afterwards."""

import pytest
from e2e.angels import Heaven


@pytest.fixture
def heaven(tmp_path):
    heaven = Heaven(tmp_path)
    yield heaven
    heaven.close()
