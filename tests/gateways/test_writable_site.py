"""The example "a site that stays writable while its database is down": it is taken away, and nothing is lost."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from support import clients
from support.nodes import PATIENCE, eventually, free_port

from dropr_core.system.presence import living

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "writable_site"

pytestmark = pytest.mark.e2e


class Site:
    """The example as its page says to start it, on free ports."""

    def __init__(self, directory):
        self.directory = directory
        shutil.copytree(EXAMPLE, directory, dirs_exist_ok=True)
        memcache, self.port = free_port(), free_port()
        config = directory / "site.yaml"
        config.write_text(config.read_text().replace("11211", str(memcache)) + "limits: {min_free: 0}\n")
        self.env = os.environ | {
            "SITE_MEMCACHE": f"127.0.0.1:{memcache}", "SITE_ADDRESS": f"127.0.0.1:{self.port}", "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        self.database = directory / "site.db"
        subprocess.run([sys.executable, "writer.py"], cwd=directory, env=self.env, check=True)
        self.log = directory / "all.log"
        self.processes = [self.run("-m", "dropr_core", "up", "-c", "site.yaml"), self.run("site.py")]

    def run(self, *words):
        """A program of the example."""
        with self.log.open("ab") as log:
            return subprocess.Popen([sys.executable, *words], cwd=self.directory, env=self.env, stdout=log, stderr=log)

    def gateway(self):
        """The process of the door, once it is up."""
        return eventually(lambda: next(iter(living(self.directory / "site-data" / "run", "gateway")), None))["pid"]

    def page(self):
        """What a visitor reads."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=PATIENCE) as answer:
                return answer.read().decode()
        except urllib.error.URLError:
            return ""

    def sign(self, text):
        """What a visitor gets who signs: the status."""
        form = urllib.parse.urlencode({"name": "Ada", "text": text}).encode()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", form, timeout=PATIENCE) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    def texts(self):
        """What stands in the database."""
        with sqlite3.connect(f"file:{self.database}?mode=ro", uri=True) as database:
            rows = [text for (text,) in database.execute("SELECT text FROM guestbook")]
        database.close()
        return sorted(rows)

    def close(self):
        """End all of it."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(PATIENCE)


@pytest.fixture
def site(tmp_path):
    """The example, running."""
    clients.module("pymemcache")
    site = Site(tmp_path / "site")
    try:
        eventually(site.page, what="the site is up")
        site.gateway()
        yield site
    finally:
        site.close()


def test_the_site_is_written_to_while_its_database_is_away(site):
    """Every visitor is thanked; when the database is back each entry stands in it once, and a kill of the door
    changes nothing.
    """
    assert site.sign("before") == 202
    eventually(lambda: site.texts() == ["before"], what="the writer puts it into the database")
    assert "before" in site.page()

    away = site.database.with_suffix(".away")
    site.database.rename(away)
    assert "cannot be shown" in site.page()
    assert [site.sign(f"during {number}") for number in range(5)] == [202] * 5

    first = site.gateway()
    os.kill(first, signal.SIGKILL)
    eventually(lambda: site.gateway() != first, what="the angel starts the door again")
    eventually(lambda: site.sign("after the kill") == 202, what="the site signs again")
    eventually(lambda: "the database is down" in site.log.read_text(), what="the writer has tried")

    away.rename(site.database)
    wanted = sorted(["before", *(f"during {number}" for number in range(5)), "after the kill"])
    eventually(lambda: len(site.texts()) >= len(wanted), what="the writer catches up")
    assert site.texts() == wanted
    assert "during 4" in site.page()
