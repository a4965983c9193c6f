"""`dropr check` finds what would fail only when the processes start."""

import pytest
from click.testing import CliRunner

from dropr_core.cli.app import application
from dropr_core.system.exit_codes import Exit

GOOD = """
node: shop
listen: ["http://127.0.0.1:8420"]
peers: {ware: {url: "http://127.0.0.1:9", key: "0123456789abcdef0123456789abcdef"}}
channels: {orders: {to: ware, serializer: json}, jobs: {handler: "command:cat"}, more: {handler: "python:json:dumps"}}
"""


def check(tmp_path, text):
    """The verb on a text; its result."""
    file = tmp_path / "shop.yaml"
    file.write_text(text)
    return CliRunner().invoke(application(), ["check", "-c", str(file)])


def test_a_good_configuration_is_well(tmp_path):
    """Everything that it names is there."""
    assert check(tmp_path, GOOD).exit_code == Exit.OK
    assert not (tmp_path / "shop-data").exists()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("node: shop", "node: shop\nstorage: sqlit", "storage 'sqlit'"),
        ("serializer: json", "serializer: jsn", "serializer 'jsn'"),
        ("command:cat", "webhok:http://127.0.0.1/", "handler 'webhok'"),
        ("http://127.0.0.1:9", "htp://127.0.0.1:9", "'htp://'"),
        ("http://127.0.0.1:8420", "zmqq+tcp://127.0.0.1:8420", "'zmqq+tcp://'"),
        ("json:dumps", "no.such.module:f", "no module no"),
        ("json:dumps", "json:dmps", "dmps"),
        ("command:cat", "command:/no/such/program", "/no/such/program"),
        ("node: shop", "node: shop\nstorage: {use: sqlite, flsh: 20ms}", "flsh"),
        ("node: shop", "node: shop\ntransports: {curl: {tlss: {}}}", "tlss"),
    ],
)
def test_what_will_fail_is_found_with_its_place(tmp_path, old, new, told):
    """Each is told before anything runs, and the exit code is that of a wrong configuration."""
    assert old in GOOD
    done = check(tmp_path, GOOD.replace(old, new))
    assert done.exit_code == Exit.CONFIG
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_all_of_them_come_at_once(tmp_path):
    """Three mistakes, three lines."""
    text = (
        GOOD.replace("serializer: json", "serializer: jsn").replace("json:dumps", "json:dmps").replace("cat", "/no/cat")
    )
    lines = check(tmp_path, text).stderr.splitlines()
    assert len(lines) == 3
    assert {line.split(".")[1] for line in lines} == {"orders", "jobs", "more"}
