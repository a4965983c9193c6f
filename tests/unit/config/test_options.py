"""Options: strict YAML, references, attrs classes filled from mappings, and what may never be shown."""

import datetime as dt
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropr_core.config import docs as configdocs
from dropr_core.config import node as config
from dropr_core.config import options, yamlfile
from dropr_core.config.interpolation import SourceLocation, expand
from dropr_core.config.options import build, format_duration, format_size, parse_duration, parse_size
from dropr_core.delivery.transports import Transports
from dropr_core.errors import ConfigError, UsageError

HUSH = "hush-hush-hush-hush-hush"
HERE = Path("/somewhere")


@attrs.frozen(kw_only=True)
class Inner:
    cert: Path | None = options.path(None)


@attrs.frozen(kw_only=True)
class Options:
    """What a plugin may declare."""

    name: str = options.option(doc="The name must be given.")
    flush: float = options.duration("20ms", least=0.001)
    room: int | None = options.size(None, most=1024)
    count: int = options.option(3, least=1)
    rate: float = 1.5
    on: bool = False
    mode: Literal["a", "b"] = "a"
    words: tuple[str, ...] = ()
    table: Mapping[str, int] = options.option(dict)
    password: str = options.secret("")
    inner: Inner = options.option(Inner)


def refused(call, *arguments):
    with pytest.raises(ConfigError) as caught:
        call(*arguments)
    return caught.value.problems


def test_every_kind_of_option_is_read():
    """Text becomes seconds, bytes and paths; one value may stand for a list of one."""
    value = build(
        Options,
        {"name": "x", "flush": "1s", "room": "1KiB", "rate": 2, "on": True, "mode": "b", "words": "one",
         "table": {"a": 1}, "inner": {"cert": "./a.pem"}},
        "storage",
        SourceLocation(directory=HERE),
    )  # fmt: skip
    assert (value.flush, value.room, value.rate, value.words) == (1.0, 1024, 2.0, ("one",))
    assert value.inner.cert == HERE / "a.pem"
    assert dict(value.table) == {"a": 1}


def test_an_option_left_empty_has_its_default():
    """A section whose every line is commented out is as good as none."""
    assert build(Options, {"name": "x", "inner": None, "flush": None, "words": None}) == Options(name="x")


def test_all_mistakes_of_a_plugin_come_at_once():
    """Each with its path and with what would be right."""
    found = refused(
        build,
        Options,
        {"flsh": 1, "room": "2KiB", "count": 0, "on": "yes", "mode": "c", "rate": True, "flush": 5,
         "table": {"a": "b"}, "inner": {"cret": "x"}, "words": [1]},
        "storage",
    )  # fmt: skip
    assert sorted(found) == [
        "storage.count: 0 is too small; use at least 1",
        "storage.flsh: no option is called 'flsh'; did you mean 'flush'?",
        "storage.flush: 5 has no unit; write '5s' for seconds (or ms, m, h, d, w)",
        "storage.inner.cret: no option is called 'cret'; did you mean 'cert'?",
        "storage.mode: expected a or b, found 'c'",
        "storage.name: is missing; The name must be given.",
        "storage.on: expected true or false, found 'yes'",
        "storage.rate: expected a number, found true",
        "storage.room: 2KiB is too big; use at most 1KiB",
        "storage.table.a: expected a whole number, found 'b'",
        "storage.words[0]: expected text, found 1; put it in quotes",
    ]


def test_a_secret_is_in_no_repr_and_in_no_mistake(monkeypatch):
    """Neither a declared secret nor what a reference gave is shown, whatever is wrong with it."""
    assert HUSH not in repr(Options(name="x", password=HUSH))
    assert "12345" not in str(refused(build, Options, {"name": "x", "password": 12345}))
    monkeypatch.setenv("DROPR_T", HUSH)
    tree = {"name": "x"} | dict.fromkeys(("count", "mode", "flush", "on"), "${env:DROPR_T}")
    tree, where = expand(tree, SourceLocation())
    found = refused(build, Options, tree, (), where)
    assert len(found) == 4
    assert HUSH not in str(found)


def test_what_a_reference_gives_may_be_a_number(monkeypatch):
    """An environment holds text only; where a number belongs, the text is read as one."""
    monkeypatch.setenv("DROPR_T", "7")
    tree, where = expand({"name": "a-${env:DROPR_T}-$${b}", "count": "${env:DROPR_T}"}, SourceLocation())
    value = build(Options, tree, (), where)
    assert (value.name, value.count) == ("a-7-${b}", 7)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("${env:DROPR_NOT_SET}", "DROPR_NOT_SET is not set"),
        ("${HOME}", "write '${env:HOME}'"),
        ("${env:X", "has no '}'"),
        ("${what:ever}", "write '${env:NAME}' or '${file:path}'"),
        ("${file:none.key}", "there is no file"),
        ("${file:open.key}", "chmod 600"),
        ("${file:.}", "no regular file"),
        ("${file:fifo}", "no regular file"),
        ("${file:big}", "bigger than 64 KiB"),
        ("${file:binary}", "not UTF-8"),
        ("${file:a\0b}", "cannot read"),
    ],
)
def test_a_reference_that_cannot_be_followed_says_why(tmp_path, text, says):
    """And nothing of the file's content is said."""
    for name, content in {"open.key": b"x", "big": b"x" * 70000, "binary": b"\xff\xfe"}.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o644 if name == "open.key" else 0o600)
    os.mkfifo(tmp_path / "fifo", 0o600)
    _, where = expand({"a": text}, SourceLocation(directory=tmp_path))
    ((steps, problem),) = where.mistakes
    assert steps == ("a",)
    assert says in problem


def test_yaml_traps_are_text():
    """What YAML 1.1 makes a boolean, an octal, a sexagesimal number or a date stays what was written."""
    text = "a: no\nb: 0755\nc: 12:30:00\nd: 2026-01-31\ne: on\nf: 1_000\ng: 0x10\nh: true\ni: ~\nj: '1'"
    read = yamlfile.read(text, "f")
    assert list(read.mapping.values()) == [
        "no", "0755", "12:30:00", "2026-01-31", "on", "1_000", "0x10", True, None, "1",
    ]  # fmt: skip
    assert read.lines[("j",)] == 10


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a:\n  b: 1\n  b: 2\n", "f:3: a: the key 'b' stands here again, first in line 2; keep one"),
        ("1: a\n", "f:1: the key '1' is not text; put it in quotes"),
        ("[a]: b\n", "f:1: the key a list or mapping is not text; put it in quotes"),
        (f"a: !{HUSH} x\n", "f:1: a tag ('!...') is not read here; remove it"),
        (f"a: &{HUSH} x\n", "f:1: an anchor ('&...') is not read here; remove it, there are no aliases"),
        (f"a: *{HUSH}\n", "f:1: an alias ('*...') is not read here; write the value out"),
        ("a:\n\t- b\n", "indent with spaces, not with tabs"),
        ("a: {b: ${env:X}}\n", 'put "${...}" in quotes'),
        ("a: 1\n---\nb: 2\n", "one file holds one node"),
        ("a: \x07\n", "f:1: a character that YAML does not allow; remove it"),
        ("[" * 500, "nested more than 32 deep"),
        (f"key: '{HUSH}\n", "f:2: found unexpected end of stream"),
    ],
)
def test_yaml_that_is_not_read_is_refused_with_its_line(text, says):
    """One sentence and no excerpt: what is quoted could be a key."""
    found = "\n".join(refused(yamlfile.read, text, "f"))
    assert says in found
    assert HUSH not in found


TREES = st.recursive(
    st.none() | st.booleans() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(TREES)
def test_no_mapping_crashes_the_reader(tree):
    """Whatever a program hands over is a configuration or a list of mistakes."""
    for mapping in ({"node": "x", "peers": tree}, {"node": tree, "channels": {"a": tree}, "listen": tree, "run": tree}):
        try:
            config.from_mapping(mapping, HERE)
        except ConfigError as error:
            assert error.problems


@given(st.floats(0, 3e9, allow_subnormal=False) | st.integers(0, 3 * 10**9).map(float))
def test_a_duration_is_read_back_as_exactly_what_it_was(seconds):
    """Formatting loses nothing down to the microsecond's millionth."""
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-15, abs=1e-29)


@given(st.integers(0, 2**62))
def test_a_size_is_read_back_as_exactly_what_it_was(number):
    """Formatting loses no byte."""
    assert parse_size(format_size(number)) == number


def test_units_are_demanded_of_files_and_not_of_programs():
    """A bare number in a file is a riddle; in Python it is seconds or bytes."""
    assert (parse_duration(1.5), parse_duration(dt.timedelta(minutes=1)), parse_size(7)) == (1.5, 60.0, 7)
    assert (parse_duration("1h30m"), parse_duration("250ms"), parse_size("1.5KiB"), parse_size("4MB")) == (
        5400.0, 0.25, 1536, 4_000_000,
    )  # fmt: skip
    for call, value in ((parse_duration, 5), (parse_size, 5)):
        with pytest.raises(UsageError, match="no unit"):
            call(value, strict=True)
    for value in ("", "5", "-1s", "s", "1x", "1e3s", "9" * 18 + "d", True, None, float("nan"), float("inf"), -1):
        with pytest.raises(UsageError):
            parse_duration(value)


def test_every_commented_option_of_the_template_may_be_uncommented():
    """What stands there is the default: uncommenting changes nothing."""
    text = configdocs.init_text("shop", "warehouse", "https://w:1", HUSH)
    lines = [line for line in text.splitlines() if not line.startswith(("# listen:", "# groups:"))]
    open_lines = [re.sub(r"^( *)# ( *[a-z_]+:)(?= |$)", r"\1\2", line) for line in lines]
    assert sum(before != after for before, after in zip(lines, open_lines, strict=True)) > 40
    assert config.parse("\n".join(open_lines), HERE) == config.parse(text, HERE)


def test_a_relative_path_of_a_plugin_is_relative_to_the_file(tmp_path, monkeypatch):
    """Certificates are found wherever the process was started, and a plugin's mistake names file and line."""
    monkeypatch.setattr("dropr_core.delivery.transports.transport_for", lambda *_: "curl")
    made = []
    monkeypatch.setattr(
        "dropr_core.delivery.transports.create", lambda *a: made.append(build(Options, a[2], a[4], a[5]))
    )
    for options_text in ("{name: x, inner: {cert: ./node.pem}}", "{name: 5}"):
        node = config.parse(f"node: s\ntransports:\n  curl: {options_text}\n", tmp_path, "node.yaml")
        transports = Transports(node.transports, None, node.where)
        if "cert" in options_text:
            transports.for_url("https://w")
        else:
            found = refused(transports.for_url, "https://w")
    assert made[0].inner.cert == tmp_path / "node.pem"
    assert found == ("node.yaml:3: transports.curl.name: expected text, found 5; put it in quotes",)


def test_plugin_options_keep_their_secrets(monkeypatch):
    """What a plugin gets from a reference is in no repr; `dropr config` shows the reference itself."""
    monkeypatch.setenv("DROPR_T", HUSH)
    text = """
node: s
storage: {use: sqlite, pragma: "${env:DROPR_T}"}
peers: {secretary: {mode: pull, key: "${env:DROPR_T}"}}
channels:
  a.b: {handler: {use: webhook, target: "https://h/?t=${env:DROPR_T}", headers: {authorization: literal-secret}}}
transports: {curl: {proxy: "http://u:literal-secret@h", tls: {key: "./node.key"}}}
"""
    made = config.parse(text, HERE)
    view = configdocs.masked(made)
    for shown in (repr(made), str(view)):
        assert HUSH not in shown
        assert "literal-secret" not in shown
    assert view["storage"]["pragma"] == "${env:DROPR_T}"
    assert view["peers"]["secretary"]["key"] == "***"
    assert view["transports"]["curl"]["tls"]["key"] == "./node.key"
    assert made.storage.options["pragma"] == HUSH
    assert made.where.find("channels.a.b.handler") == ("channels", "a.b", "handler")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("insecure: true\nlisten: ['http://[']\npeers: {w: {mode: pull}}", "listen[0]: 'http://[' is not a URL"),
        ("insecure: true\npeers: {w: {url: 'http://127.evil.example:1'}}", "not on loopback"),
        (f"peers: {{w: {{url: 'http://u:{HUSH}@h', key: {HUSH}}}}}", "remove user and password"),
        (f"peers: {{w: {{url: 'https:///x', key: {HUSH}}}}}", "is not a URL"),
        (f"peers: {{w: {{mode: pull, fetch: true, key: {HUSH}}}}}", "peers.w.fetch: needs the peer's url"),
        ("run: [daemon, daemon]", "names daemon twice"),
        ("groups: {g: []}", "has no member"),
        ("channels: {a: {delay: 5m, expires_in: 1m}}", "every message would expire"),
        ("storage: ../x", "storage: plugin '../x'"),
    ],
)
def test_contradictions_are_refused(text, says):
    """A configuration that cannot do what it says is no configuration."""
    found = "\n".join(refused(config.parse, f"node: s\n{text}\n", HERE))
    assert says in found
    assert HUSH not in found


def test_a_word_of_an_earlier_version_names_the_one_of_today():
    """Renamed: the mistake says what to write; removed: what to do instead. Neither is read as something else."""

    @attrs.frozen(kw_only=True)
    class Changed:
        Removed = {"turbo": "it is always on"}  # noqa: RUF012
        patience: float = options.duration("1s", formerly=("timeout", "wait"))

    assert build(Changed, {"patience": "2s"}).patience == 2
    assert refused(build, Changed, {"timeout": "2s"}) == (
        "timeout: is called 'patience' now; write patience: in its place",
    )
    assert refused(build, Changed, {"turbo": True}) == ("turbo: is no option any more; it is always on",)
    assert "no option is called 'patiense'" in refused(build, Changed, {"patiense": "1s"})[0]
