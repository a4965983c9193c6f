"""Two clients of Node.js, jackd and fivebeans, against the door."""

import pytest
from support import clients

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("library", ["jackd", "fivebeans"])
def test_a_client_of_node_js_works(place, library, tmp_path, connect):
    """Put, reserve, release, bury, kick and delete, beside a connection of another client."""
    port = place.doors()["beanstalk"][0].rpartition(":")[2]
    script = str(clients.NPM / "beanstalk.js")
    client = clients.Talker([clients.node(library), script, library, port], tmp_path / "node.log")
    try:
        assert client.ask("use", "mail") == "mail"
        assert int(client.ask("watch", "mail")) == 2
        numbers = [str(client.ask("put", f"job {n}", n, 0, 60)) for n in (2, 1)]
        assert client.ask("reserve", 20) == [numbers[1], "job 1"]
        assert client.ask("reserve", 20) == [numbers[0], "job 2"]
        client.ask("release", numbers[0], 0, 0)
        client.ask("bury", numbers[1], 3)
        assert int(client.ask("kick", 10)) == 1
        assert client.ask("reserve", 20) == [numbers[0], "job 2"]
        client.ask("delete", numbers[0])
        assert "current-jobs-reserved" in str(client.ask("stats"))
        other = connect()
        other.ask("watch mail")
        assert other.reserve() == (int(numbers[1]), b"job 1")
    finally:
        client.close()
