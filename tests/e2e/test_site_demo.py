"""The demo of a site: three machines behind one name, each of which is killed."""

import contextlib
import json

import pytest
from click.testing import CliRunner
from support.nodes import eventually

from dropr_core.cli.app import application
from dropr_core.demo.postgres import Server, find_programs
from dropr_core.errors import UsageError
from dropr_core.system.exit_codes import Exit

pytestmark = pytest.mark.e2e


@pytest.mark.timeout(300)
def test_a_site_loses_nothing_while_each_of_its_machines_dies(tmp_path, postgres_server):
    """Each machine killed, one cut off, the database restarted: nothing lost or doubled, in order, receipts home."""
    assert postgres_server.bin  # it is asked for to skip, or to fail in CI, where there is none
    files = tmp_path / "files"
    files.mkdir()
    for number in range(6):
        (files / f"{number}.bin").write_bytes(bytes([number]) * (40_000 * number))
    words = ["demo", "--site", "--json", "--messages", "600", "--files", str(files), "--deadline", "280s"]
    result = CliRunner().invoke(application(), words)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["good"]
    assert {(stream["lost"], stream["doubled"], stream["out_of_order"]) for stream in told["streams"]} == {(0, 0, 0)}
    assert len(told["recoveries"]) == 5
    assert told["receipts"] == {"wanted": 200, "good": 200, "bad": 0, "missing": 0}


def enter(psycopg, url):
    """Whether one gets in; whoever comes while it still starts comes again."""
    with contextlib.suppress(psycopg.OperationalError):
        psycopg.connect(url).close()
        return True


def test_nobody_else_of_the_machine_gets_into_the_database_of_a_demo(postgres_server):
    """Its port can be reached by every user here, who without the password is refused."""
    psycopg = pytest.importorskip("psycopg")
    assert postgres_server.bin
    server = Server()
    try:
        eventually(lambda: enter(psycopg, server.url()), 60)
        stranger = f"postgresql://dropr@127.0.0.1:{server.port}/postgres"
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(stranger, passfile="none").close()
    finally:
        server.close()


def test_where_no_server_can_be_started_the_way_to_one_is_told(monkeypatch):
    """Without any PostgreSQL on the machine the error says what to install, and that a database can be named."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if name == "psycopg" else None)
    monkeypatch.setattr("pathlib.Path.glob", lambda *_: iter(()))
    monkeypatch.setattr("shutil.which", lambda _name: None)
    with pytest.raises(UsageError, match="--postgres URL"):
        find_programs()


def test_a_database_is_named_for_a_site_alone():
    """The option is refused where it would do nothing."""
    result = CliRunner().invoke(application(), ["demo", "--postgres", "postgresql://db/x"])
    assert result.exit_code == Exit.USAGE
    assert "--site" in result.output
