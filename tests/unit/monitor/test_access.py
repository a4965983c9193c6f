"""Who may ask the monitor of a node."""

import stat

import pytest

from dropr_core.config.node import from_mapping
from dropr_core.errors import ConfigError
from dropr_core.monitor.access import Access, is_ours, names_of, token_of
from dropr_core.system.address import read_address


def config(tmp_path, **monitor):
    """A node with a page."""
    monitor = {"listen": "http://127.0.0.1:0", **monitor}
    return from_mapping({"node": "shop", "data": str(tmp_path / "data"), "monitor": monitor}, tmp_path)


def test_the_node_makes_a_token_that_only_its_owner_reads(tmp_path):
    """It is made once, of 256 bits, with mode 0600."""
    made = token_of(config(tmp_path))
    file = tmp_path / "data" / "monitor.token"
    assert len(made) >= 43
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert token_of(config(tmp_path)) == made == file.read_text().strip()


def test_a_token_that_others_may_read_is_refused(tmp_path):
    """And what to do about it is said."""
    token_of(config(tmp_path))
    (tmp_path / "data" / "monitor.token").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        token_of(config(tmp_path))


def test_a_token_of_the_configuration_counts(tmp_path):
    """Nothing is made then."""
    assert token_of(config(tmp_path, token="0123456789abcdef")) == "0123456789abcdef"
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        ("Bearer secret-of-the-test", True),
        ("bearer secret-of-the-test", True),
        ("Bearer  secret-of-the-test ", True),
        ("Bearer secret-of-the-tesT", False),
        ("Bearer ", False),
        ("", False),
        ("secret-of-the-test", False),
        ("Basic secret-of-the-test", False),
        ("Bearer sécret", False),
    ],
)
def test_only_the_token_opens(header, allowed):
    """Shown as a bearer token, whole."""
    assert Access("secret-of-the-test").allows({"authorization": header}) is allowed


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("127.0.0.1:8429", True),
        ("[::1]:8429", True),
        ("10.0.0.7", True),
        ("localhost:8429", True),
        ("LOCALHOST.:8429", True),
        ("shop.example:443", True),
        ("other.example", True),
        ("evil.example", False),
        ("localhost.evil.example:8429", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
        ("[", False),
    ],
)
def test_a_name_that_others_can_turn_is_refused(host, ours):
    """A foreign name that resolves to this machine is how a foreign page would get here (DNS rebinding)."""
    address = read_address("https://shop.example:8429?cert=a&key=b", ("https",))
    assert is_ours(host, names_of([address], ["other.example"])) is ours


@pytest.mark.parametrize(
    ("monitor", "told"),
    [
        ({"listen": "http://0.0.0.0:8429"}, "can be reached from elsewhere, and others on the way can read the token"),
        ({"listen": "http://[::]:8429"}, "can be reached from elsewhere"),
        ({"listen": "tcp://127.0.0.1:8429"}, "what listens here does so at http://, https://, unix://"),
        ({"listen": "https://0.0.0.0:8429"}, "say its certificate and key"),
        ({"listen": "http://127.0.0.1"}, "write it like http://127.0.0.1:PORT"),
        ({"listen": "http://127.0.0.1:1", "token": "short"}, "is shorter than 16 characters"),
    ],
)
def test_what_would_be_unsafe_is_refused_with_the_file(tmp_path, monitor, told):
    """Each mistake is said at its place, and no token is shown."""
    with pytest.raises(ConfigError, match=r"monitor\.(listen|token)") as caught:
        config(tmp_path, **monitor)
    assert told in str(caught.value)
    assert "'short'" not in str(caught.value)


def test_who_says_it_twice_may_listen_anywhere(tmp_path):
    """TLS, or `insecure: true`."""
    assert config(tmp_path, listen="http://0.0.0.0:8429", insecure=True).monitor.listen
    assert config(tmp_path, listen="https://0.0.0.0:8429?cert=a.pem&key=a.key").monitor.listen


@pytest.mark.parametrize(
    ("more", "run"),
    [
        ({}, ("daemon", "monitor")),
        ({"listen": ["http://127.0.0.1:1"]}, ("daemon", "server")),
        ({"monitor": {}}, ("daemon",)),
    ],
)
def test_a_node_without_a_server_serves_the_page_by_a_process_of_its_own(tmp_path, more, run):
    """And a node without a page needs neither."""
    mapping = {"node": "shop", "monitor": {"listen": "http://127.0.0.1:0"}, **more}
    assert from_mapping(mapping, tmp_path).run == run
