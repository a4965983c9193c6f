"""Ids as people type them, and what the command line says of words that nobody knows."""

import pytest
from click.testing import CliRunner

import dropr_core as dropr
from dropr_core.cli.app import application
from dropr_core.cli.ids import shortened
from dropr_core.system.exit_codes import Exit

YAML = """
node: shop
limits: {min_free: 0}
peers: {ware: {url: "http://127.0.0.1:9", key: "0123456789abcdef0123456789abcdef"}}
channels: {orders: {to: ware, serializer: json}}
"""
FIRST = "11111111-1111-7111-8111-111111111111"
SECOND = "11111111-1111-7111-8111-222222222222"


@pytest.fixture
def run(tmp_path):
    """Run a verb on a node with two messages whose ids begin alike."""
    file = tmp_path / "shop.yaml"
    file.write_text(YAML)
    with dropr.open(file) as node:
        for identity in (FIRST, SECOND):
            node.send(b"x", to="ware", id=identity)

    def run(*arguments):
        return CliRunner().invoke(application(), [*arguments, "-c", str(file)])

    return run


@pytest.mark.parametrize("verb", ["show", "cat", "cancel"])
def test_every_verb_takes_the_beginning_of_an_id(run, verb):
    """As long as one message begins so; dashes and capitals do not matter."""
    assert run(verb, SECOND[:26]).exit_code == Exit.OK
    assert run(verb, FIRST.replace("-", "")[:22]).exit_code == Exit.OK


def test_filters_take_the_beginning_of_an_id(run):
    """``--id`` of list, kick, redrive and wipe as well."""
    assert SECOND in run("list", "--id", SECOND[:26]).output
    assert FIRST not in run("list", "--id", SECOND[:26]).output
    assert run("cancel", SECOND[:26]).exit_code == Exit.OK
    assert "removed 1 delivery" in run("wipe", "--yes", "--id", SECOND[:26]).output


def test_a_beginning_of_several_is_refused_with_them(run):
    """Nothing is done to either; the text says which they are."""
    done = run("cancel", FIRST[:13])
    assert done.exit_code == Exit.USAGE
    assert FIRST in done.stderr
    assert SECOND in done.stderr
    assert "queued" in run("list").output


def test_a_beginning_of_none_is_not_found(run):
    """66, as for a whole id that nobody knows."""
    assert run("show", "ffffffff").exit_code == Exit.NO_INPUT
    assert run("show", "11111").exit_code == Exit.USAGE


def test_ids_are_shown_no_longer_than_tells_them_apart():
    """All of one length, 13 characters at least, never ending in a dash."""
    assert shortened([FIRST]) == {FIRST: FIRST[:13]}
    assert shortened([FIRST, SECOND]) == {FIRST: FIRST[:25], SECOND: SECOND[:25]}
    assert shortened([]) == {}


@pytest.mark.parametrize(
    ("words", "meant"),
    [(["snd", "x"], "'send'"), (["recieve", "orders"], "'receive'"), (["receive", "ordrs"], "'orders'")],
)
def test_a_typing_mistake_is_answered_with_what_was_meant(run, words, meant):
    """Verbs and channels alike."""
    done = run(*words)
    assert done.exit_code in {Exit.USAGE, Exit.NO_INPUT}
    assert f"did you mean {meant}?" in done.stderr


def test_a_server_without_an_address_says_so(run):
    """Instead of listening on nothing for ever."""
    done = run("server")
    assert done.exit_code == Exit.CONFIG
    assert "has no `listen:`" in done.stderr
