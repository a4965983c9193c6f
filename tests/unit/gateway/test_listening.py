"""Where gateways may listen is judged before any door opens, by `dropr check` in the words of the process."""

import json
import socket

import pytest
from click.testing import CliRunner

from dropr_core.cli.app import application
from dropr_core.system.address import Address, read_address
from dropr_core.system.exit_codes import Exit

ALL = ("tcp", "tls", "unix", "http", "https")


def check(tmp_path, gateways):
    """The verb on a node with these gateways; its result."""
    file = tmp_path / "node.yaml"
    file.write_text(json.dumps({"node": "shop", "gateways": gateways}))
    file.chmod(0o600)
    return CliRunner().invoke(application(), ["check", "-c", str(file)])


def address(url):
    """One that is well written."""
    made = read_address(url, ALL)
    assert isinstance(made, Address)
    return made


def test_gateways_that_may_listen_are_well(tmp_path):
    """Their usual ports, any free port twice, beyond loopback with proof or with a word; and nothing is opened."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gateways = {
            "beanstalk": None,
            "stomp": {"listen": "tcp://0.0.0.0:61613", "users": {"app": "geheim"}},
            "memcache": {"listen": ["tcp://127.0.0.1:0", "tcp://127.0.0.1:0"]},
            "gearman": {"listen": "tcp://0.0.0.0:4730", "insecure": True},
            "http": {"listen": f"http://127.0.0.1:{taken.getsockname()[1]}"},
        }
        done = check(tmp_path, gateways)
    assert done.exit_code == Exit.OK, done.stderr
    assert not (tmp_path / "shop-data").exists()


def test_a_door_may_not_stand_where_peers_are_answered(tmp_path):
    """The node's own address is compared with those of its gateways, whatever the scheme and the way it is written."""
    file = tmp_path / "node.yaml"
    listen = ["http://0.0.0.0:8420", "http://127.0.0.1:8421/dropr"]
    for url, clash in (("tcp://127.0.0.1:8420", True), ("tcp://localhost:8421", True), ("tcp://127.0.0.1:8422", False)):
        file.write_text(json.dumps({"node": "shop", "listen": listen, "gateways": {"beanstalk": {"listen": url}}}))
        file.chmod(0o600)
        done = CliRunner().invoke(application(), ["check", "-c", str(file)])
        told = f"gateways.beanstalk.listen: {url} is the place of this node's own `listen:`"
        assert (told in done.stderr) is clash, done.stderr
        assert (done.exit_code == Exit.CONFIG) is clash, done.stderr


@pytest.mark.parametrize(
    ("gateways", "told"),
    [
        (
            {"beanstalk": {"listen": "http://127.0.0.1:1"}},
            "gateways.beanstalk.listen: 'http://127.0.0.1:1': what listens here does so at tcp://, tls://, unix://",
        ),
        (
            {"stomp": {"listen": "tcp://0.0.0.0:61613"}},
            "gateways.stomp.listen: tcp://0.0.0.0:61613 can be reached from elsewhere",
        ),
        (
            {"door": {"use": "sqs", "listen": "http://sqs.example:80"}},
            "gateways.door.listen: http://sqs.example:80 can",
        ),
        ({"beanstalk": {"listen": "tcp://127.0.0.1"}}, "write it like tcp://127.0.0.1:PORT"),
        ({"beanstalk": {"listen": "unix:///run/x?mode=rw"}}, "mode is written like 660"),
        ({"beanstalk": {"listen": "tls://127.0.0.1:1"}}, "say its certificate and key"),
        ({"beanstalk": {"listen": "tls://127.0.0.1:1?cert=no.pem&key=no.key"}}, "its certificate, key or ca: "),
        (
            {"beanstalk": {"listen": "tcp://127.0.0.1:1"}, "memcache": {"listen": "tcp://localhost:1"}},
            "gateways.memcache.listen: tcp://localhost:1 is the place of gateways.beanstalk (tcp://127.0.0.1:1)",
        ),
        ({"beanstalk": {"listen": ["tcp://127.0.0.1:1", "tcp://127.0.0.1:1"]}}, "tcp://127.0.0.1:1 is there twice"),
        ({"one": {"use": "beanstalk"}, "two": {"use": "beanstalk"}}, "gateways.two.listen: tcp://127.0.0.1:11300 is"),
        ({"beanstlk": None}, "gateway 'beanstlk' is not installed"),
        ({"stomp": {"prefetsh": 3}}, "gateways.stomp.prefetsh"),
    ],
)
def test_what_may_not_be_is_told_with_its_place(tmp_path, gateways, told):
    """Each is a mistake of the file."""
    done = check(tmp_path, gateways)
    assert done.exit_code == Exit.CONFIG
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_all_mistakes_come_at_once(tmp_path):
    """Of several gateways and several addresses."""
    gateways = {
        "stomp": {"listen": ["tcp://0.0.0.0:1", "htp://127.0.0.1:2"]},
        "beanstalk": {"listen": "tcp://127.0.0.1:3"},
        "memcache": {"listen": "tcp://127.0.0.1:3"},
    }
    assert len(check(tmp_path, gateways).stderr.splitlines()) == 3


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("tcp://127.0.0.1:1", "http://127.0.0.1:1", True),
        ("tcp://127.0.0.1:1", "tcp://127.0.0.1:2", False),
        ("tcp://127.0.0.1:0", "tcp://127.0.0.1:0", False),
        ("tcp://127.0.0.1:1", "tcp://0.0.0.0:1", True),
        ("tcp://127.0.0.1:1", "tcp://127.0.0.2:1", False),
        ("tcp://[::1]:1", "tcp://127.0.0.1:1", False),
        ("tcp://[::]:1", "tcp://127.0.0.1:1", True),
        ("tcp://[::1]:1", "tcp://[0:0:0:0:0:0:0:1]:1", True),
        ("tcp://0.0.0.0:1", "tcp://[::1]:1", False),
        ("tcp://Door.example:1", "tcp://door.example:1", True),
        ("unix:///run/a", "unix:///run//a", True),
        ("unix:///run/a", "unix:///run/b", False),
        ("unix:///run/a", "tcp://127.0.0.1:1", False),
    ],
)
def test_two_addresses_meet_as_the_system_sees_it(one, other, meet):
    """Both ways round; a port that is free to choose meets nobody."""
    assert address(one).meets(address(other)) is meet
    assert address(other).meets(address(one)) is meet
