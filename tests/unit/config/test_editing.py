"""Entries that are put into a YAML file: nothing else in it changes, and what cannot be done is said."""

import pytest

from dropr_core.config import yamlfile
from dropr_core.config.editing import add_entry, read_config, replace_config
from dropr_core.errors import ConfigError

PEER = {"url": "http://b:1", "key": "${file:new.key}", "may_write": ("a", "b*")}
LINE = 'new: {url: "http://b:1", key: "${file:new.key}", may_write: [a, "b*"]}'

BLOCK = "node: shop\npeers:\n  a: {url: x}   # first\n  b:\n    url: y # why\n    may_write:\n      - c\n"

FORMS = {
    "no section": ("node: shop   # mine\n", f"node: shop   # mine\npeers:\n  {LINE}\n"),
    "no last line end": ("node: shop", f"node: shop\npeers:\n  {LINE}\n"),
    "an empty section": ("node: shop\npeers:   # others\n# more\nx: 1\n", None),
    "an empty section at the end": ("node: shop\npeers:", f"node: shop\npeers:\n  {LINE}\n"),
    "a tilde": ("node: shop\npeers: ~\nx: 1\n", None),
    "empty braces": ("node: shop\npeers: {}\nx: 1\n", f"node: shop\npeers: {{{LINE}}}\nx: 1\n"),
    "a block": (f"{BLOCK}\n# next\nx: 1\n", f"{BLOCK}  {LINE}\n\n# next\nx: 1\n"),
    "four blanks": ("node: shop\npeers:\n    a: {url: x}\n", f"node: shop\npeers:\n    a: {{url: x}}\n    {LINE}\n"),
    "a value that is missing": ("node: shop\npeers:\n  a:\n    url:\n", None),
    "a value of many lines": ("node: shop\npeers:\n  a:\n    key: |\n      abc\n      def\n\n# c\nx: 1\n", None),
    "quotes of two lines": ('peers:\n  a:\n    url: "x\n      y"\n    key: plain\n     more\nx: 1\n', None),
    "braces": ("peers: {a: {url: x}}   # all\n", f"peers: {{a: {{url: x}}, {LINE}}}   # all\n"),
    "braces with comments": ("peers: {\n  a: {url: x},  # one\n  b: {url: y}  # two\n}\n", None),
    "braces with a last comma": ("peers: {\n  a: {url: x},\n}\n", None),
    "all in braces": ("{node: shop, peers: {a: {url: x}}}", None),
    "all in braces without": ("{node: shop}", None),
    "quoted keys": ('"peers":\n  "a": {url: x}\n', None),
    "line ends of another system": ("node: shop\r\npeers:\r\n  a: {url: x}\r\nx: 1\r\n", None),
    "marks of a document": ("---\nnode: shop\n...\n", None),
    "nothing at all": ("", f"peers:\n  {LINE}\n"),
    "comments alone": ("# nothing\n", f"# nothing\npeers:\n  {LINE}\n"),
}


@pytest.mark.parametrize("name", FORMS)
def test_an_entry_is_put_in_and_every_line_stays(name):
    """The file says the entry besides what it said; each comment and line of its author is still there, in order."""
    before, expected = FORMS[name]
    after = add_entry(before, "f", ("peers", "new"), PEER)
    assert expected in (None, after)
    said = yamlfile.read(after, "f").mapping
    assert said["peers"].pop("new") == {**PEER, "may_write": ["a", "b*"]}
    old = yamlfile.read(before, "f").mapping
    assert {**said, "peers": said["peers"] or None} == {**old, "peers": old.get("peers") or None}
    comments = [line.partition("#")[2] for line in before.splitlines() if "#" in line]
    assert [line.partition("#")[2] for line in after.splitlines() if "#" in line] == comments


def test_mappings_around_an_entry_are_made():
    """An option of a transport in a file that has none, some, or other options of it."""
    for before in (
        "node: a\n",
        "transports:\n  zmq: {key: a}\n",
        "transports:\n  curl:\n    tls:\n      cert: x # c\n",
        "transports: {curl: {http2: true}}\n",
        "transports:\n  curl: {}\n",
        "transports:\n  curl:\n",
    ):
        after = add_entry(before, "f", ("transports", "curl", "tls", "ca"), "./w.pem")
        assert yamlfile.read(after, "f").mapping["transports"]["curl"]["tls"]["ca"] == "./w.pem"


def test_what_stands_there_is_not_replaced():
    """An entry of that name, or a value where a mapping should be, is a mistake with advice; nothing is made of it."""
    with pytest.raises(ConfigError, match=r"peers\.a stands there already"):
        add_entry("peers: {a: {url: x}}\n", "f", ("peers", "a"), PEER)
    with pytest.raises(ConfigError, match=r"write it there by hand: peers: \{new: \{url"):
        add_entry("peers: [a]\n", "f", ("peers", "new"), PEER)
    with pytest.raises(ConfigError, match="write it there by hand"):
        add_entry("peers:\n  a:\n    key: |\n      abc", "f", ("peers", "new"), PEER)


def test_a_configuration_is_replaced_with_its_permissions_and_a_backup(tmp_path):
    """Mode and symbolic link stay, the old text stands in FILE.bak; one that changed meanwhile is left as it is."""
    real, link = tmp_path / "real.yaml", tmp_path / "node.yaml"
    real.write_bytes(b"node: shop\r\n")
    real.chmod(0o640)
    link.symlink_to(real)
    old = read_config(link)
    backup = replace_config(link, old, "node: shop\r\npeers: {}\n")
    assert (link.is_symlink(), real.read_bytes()) == (True, b"node: shop\r\npeers: {}\n")
    assert (backup.read_bytes(), real.stat().st_mode & 0o777, backup.stat().st_mode & 0o777) == (
        b"node: shop\r\n", 0o640, 0o640,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="changed meanwhile"):
        replace_config(link, old, "node: other\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["node.yaml", "real.yaml", "real.yaml.bak"]
