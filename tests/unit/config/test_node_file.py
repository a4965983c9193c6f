"""The configuration: what is read, what is refused, and that every mistake is said at its place."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropr_core.config import docs as configdocs
from dropr_core.config.node import Component, load, parse
from dropr_core.config.units import format_duration, format_size, parse_duration, parse_size
from dropr_core.errors import ConfigError, UnknownPeer, UsageError

KEY = "k" * 20
HERE = Path("/somewhere")


def problems(text, directory=HERE):
    with pytest.raises(ConfigError) as caught:
        parse(text, directory, "node.yaml")
    return caught.value.problems


def test_smallest_useful_file():
    """A node and one peer are enough; everything else has a default."""
    config = parse(f"node: shop\npeers: {{w: {{url: 'https://w:1', key: {KEY}}}}}", HERE)
    assert config.data == HERE / "shop-data"
    assert config.storage == Component("sqlite")
    assert config.run == ("daemon",)
    assert config.peers["w"].keys == (KEY.encode(),)
    assert config.limits.batch_bytes == 4 * 1024 * 1024
    assert config.delivery.life == 5 * 86400


def test_the_file_of_the_architecture():
    """Short and long forms of everything are read."""
    config = parse(
        f"""
node: shop
data: ./shop-data
storage: {{use: sqlite, flush: 20ms}}
listen: ["https://0.0.0.0:8420"]
peers:
  warehouse: {{url: "https://warehouse.example:8420", key: {KEY}, may_write: [returns]}}
  berlin: {{url: "zmq+tcp://10.0.0.9:8421", key: [{KEY}1, {KEY}2]}}
  laptop: {{mode: pull, key: {KEY}}}
groups:
  everywhere: [warehouse, berlin, laptop]
channels:
  orders: {{to: warehouse, serializer: json, priority: 3, receipt: true}}
  prices: {{to: everywhere, serializer: json}}
  returns: {{handler: "python:shop.returns:on_return", attempts: 5}}
transports:
  curl: {{tls: {{cert: ./node.pem}}}}
""",
        HERE,
    )
    assert config.resolve("everywhere") == ("warehouse", "berlin", "laptop")
    assert config.resolve("laptop") == ("laptop",)
    assert config.channels["returns"].handler == Component("python", {"target": "shop.returns:on_return"})
    assert config.channels["orders"].to == ("warehouse",)
    assert config.run == ("daemon", "server", "worker")
    assert config.peers["berlin"].keys == ((KEY + "1").encode(), (KEY + "2").encode())
    with pytest.raises(UnknownPeer, match="did you mean 'berlin'"):
        config.resolve("berlim")


def test_concurrency_is_the_old_name_of_threads():
    """A file of old is read as before, and told of the new word; both words with two numbers are a mistake."""
    config = parse("node: a\nworker: {concurrency: 4}", HERE)
    assert config.worker.threads == 4
    (warning,) = config.warnings
    assert warning.startswith("worker.concurrency: 4 is taken as `threads: 4`")
    assert parse("node: a\nworker: {threads: 4, processes: 2}", HERE).warnings == ()
    assert parse("node: a\nworker: {threads: 4, concurrency: 4}", HERE).worker.threads == 4
    (problem,) = problems("node: a\nworker: {threads: 4, concurrency: 2}")
    assert "worker.concurrency: is the old name of threads, which is given as well" in problem


def test_all_mistakes_come_at_once_with_line_path_and_suggestion():
    """A person mends the file in one go."""
    found = problems(
        f"""node: shop
peers:
  warehouse: {{url: "https://w:1", key: {KEY}, may_wirte: [x]}}
  laptop: {{key: {KEY}}}
groups:
  everywhere: [warehouse, laptpo]
channels:
  prices: {{to: everwhere, priority: 12}}
  "bad name": {{}}
limits: {{max_body: 5}}
listne: []
"""
    )
    text = "\n".join(found)
    assert len(found) == 8, text
    assert "node.yaml:3: peers.warehouse.may_wirte" in text
    assert "did you mean 'may_write'?" in text
    assert "node.yaml:4: peers.laptop: has no url" in text
    assert "groups.everywhere" in text
    assert "did you mean 'laptop'?" in text
    assert "node.yaml:8: channels.prices.to: no peer or group 'everwhere'; did you mean 'everywhere'?" in text
    assert "channels.prices.priority: 12 is too big; use at most 9" in text
    assert "limits.max_body" in text
    assert "did you mean 'listen'?" in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("node: a\nnode: b\n", "node"),
        ("node: shop\n1: x\n", "text"),
        ("node: no\nlisten: yes\n", "listen"),
        ("node: !!python/name:os.system x\n", "not read here"),
        ("- node\n", "mapping"),
        ("node: [\n", "node.yaml"),
        ("", "node"),
        ("node: shop\npeers: {shop: {mode: pull, key: " + KEY + "}}\n", "this node itself"),
        ("node: shop\npeers: {w: {url: 'https://w'}}\n", "has no key"),
        ("node: shop\npeers: {w: {url: 'https://w', key: short}}\n", "at least 16"),
        ("node: shop\npeers: {w: {url: 'w', key: " + KEY + "}}\n", "not a URL"),
        ("node: shop\ninsecure: true\npeers: {w: {url: 'http://10.0.0.1'}}\n", "loopback"),
        ("node: shop\ninsecure: true\nlisten: ['http://0.0.0.0:1']\npeers: {w: {mode: pull}}\n", "loopback"),
        ("node: shop\ndelivery: {life: 5}\n", "unit"),
        ("node: shop\npeers: {w: {mode: pull, key: '${env:DROPR_NOT_SET}'}}\n", "DROPR_NOT_SET is not set"),
    ],
)
def test_one_mistake(text, says):
    """Each trap of YAML and each contradiction is refused with a reason."""
    assert says in "\n".join(problems(text))


def test_insecure_is_possible_on_loopback_or_said_twice():
    """A peer without a key is allowed where the file says so."""
    parse("node: shop\ninsecure: true\npeers: {w: {url: 'http://127.0.0.1:1'}}\n", HERE)
    parse("node: shop\ninsecure: really\npeers: {w: {url: 'http://10.0.0.1:1'}}\n", HERE)


def test_references_come_from_environment_and_file(tmp_path, monkeypatch):
    """Keys need not stand in the file; a file that others can read is refused, its content is never shown."""
    monkeypatch.setenv("PAIR", KEY)
    secret = tmp_path / "pair.key"
    secret.write_text(KEY + "2\n")
    secret.chmod(0o600)
    text = "node: shop\npeers: {w: {mode: pull, key: ['${env:PAIR}', '${file:pair.key}']}}\n"
    config = parse(text, tmp_path)
    assert config.peers["w"].keys == (KEY.encode(), (KEY + "2").encode())
    assert KEY not in repr(config)
    assert KEY not in json.dumps(configdocs.masked(config))
    secret.chmod(0o644)
    (problem,) = problems(text, tmp_path)
    assert "chmod 600" in problem
    assert KEY not in problem


def test_a_file_that_cannot_be_read_says_what_to_do(tmp_path):
    """A missing file is no traceback."""
    with pytest.raises(ConfigError, match="dropr init"):
        load(tmp_path / "none.yaml")


def test_plain_http_beyond_loopback_is_warned_of():
    """Signed, but readable on the way: said, not refused."""
    config = parse(f"node: s\npeers: {{w: {{url: 'http://10.0.0.1:1', key: {KEY}}}}}", HERE)
    assert "not encrypted" in config.warnings[0]


def test_the_template_loads_without_mistakes():
    """What `dropr init` writes is a good configuration."""
    config = parse(configdocs.init_text(key=configdocs.make_key()), HERE)
    assert config.node == "shop"


def test_the_reference_is_what_the_classes_say():
    """docs/configuration.md is generated: `python -c "from dropr_core.config.docs import reference; ..."`."""
    written = (Path(__file__).resolve().parents[3] / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == configdocs.reference()


def test_the_schema_knows_every_option():
    """Editors are told the same words that are read."""
    schema = configdocs.schema()
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["node"]
    peers = schema["properties"]["peers"]["additionalProperties"]["properties"]
    assert {"url", "key", "mode", "may_write"} <= set(peers)


@given(st.integers(0, 10**9).map(lambda ms: ms / 1000))
def test_durations_round_trip(seconds):
    """A duration is read back as it was written."""
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds)


@given(st.integers(0, 2**50))
def test_sizes_round_trip(size):
    """A size is read back as it was written."""
    assert parse_size(format_size(size)) == size


@given(st.text(max_size=30))
def test_any_text_is_a_duration_or_a_clear_refusal(text):
    """No text crashes the reader of durations and sizes."""
    for parser in (parse_duration, parse_size):
        try:
            assert parser(text) >= 0
        except UsageError:
            pass


@given(st.text(max_size=200))
def test_any_text_is_a_configuration_or_a_clear_refusal(text):
    """No text crashes the reader of configurations."""
    try:
        parse(text, HERE)
    except ConfigError as error:
        assert error.problems


def accepts(schema, value):
    """What a JSON Schema made of ``anyOf``, ``const``, ``type`` and ``pattern`` says of a value."""
    if "anyOf" in schema:
        return any(accepts(one, value) for one in schema["anyOf"])
    if "const" in schema:
        return type(value) is type(schema["const"]) and value == schema["const"]
    # ``$`` of JSON Schema is the very end, that of Python's search also stands before a last newline.
    return isinstance(value, str) and re.search(re.sub(r"\$$", r"\\Z", schema["pattern"]), value) is not None


def near_misses(units):
    """Texts of the pieces that durations and sizes are made of, in any order, and anything else."""
    numbers = st.sampled_from(["0", "1", "90", "1.5", "1.", ".5", "01", "-1", "1e3", "9" * 19, "9" * 20])
    pieces = st.one_of(numbers, st.sampled_from([*units, " ", "  ", "", "\n", "\u0661", "\u212a"]))
    return st.one_of(st.lists(pieces, max_size=6).map("".join), st.text(max_size=6), st.integers(-2, 2), st.booleans())


@pytest.mark.parametrize(
    ("option", "parse", "values"),
    [
        (("delivery", "life"), parse_duration, near_misses(("w", "d", "h", "m", "s", "ms", "us", "M", "D"))),
        (("limits", "batch_bytes"), parse_size, near_misses(("b", "B", "k", "kB", "KiB", "kIb", "GB", "PiB", "EiB"))),
    ],
)
def test_the_schema_accepts_exactly_the_durations_and_sizes_that_are_read(option, parse, values):
    """An editor marks what `dropr check` refuses and nothing else; only a range no pattern can say."""
    section, word = option
    schema = configdocs.schema()["properties"][section]["properties"][word]

    @given(values)
    def check(value):
        try:
            parse(value, strict=True)
        except UsageError as error:
            readable = "no usable" in str(error) and isinstance(value, str)  # well written, but beyond the range
        else:
            readable = True
        assert accepts(schema, value) == readable, value

    check()
    assert accepts(schema, "${env:SOME}")
    assert not accepts(schema, "$env")
