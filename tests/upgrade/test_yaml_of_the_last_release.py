"""Configuration files of the last release, read by this tree."""

import json
import subprocess
import sys

FILE = """
node: shop
data: ./data
listen: ["http://127.0.0.1:8420"]
storage: {use: sqlite, flush: 10ms, busy: 2s, cache: 8MiB, reserve: 1MiB}
transports:
  curl: {}
  zmq: {curve: false}
limits: {inline_body: 32KiB, batch_count: 500, batch_bytes: 1MiB, max_body: 1GiB, min_free: 0}
delivery: {life: 2d, backoff_min: 2s, backoff_max: 30s, on_peer_reset: hold, idle_timeout: 20s}
peers:
  ware: {url: "http://127.0.0.1:8421", key: "0123456789abcdef0123456789abcdef", may_write: ["orders", "files/*"]}
  laptop: {mode: pull, key: "0123456789abcdef0123456789abcdef"}
groups: {all: [ware, laptop]}
channels:
  orders: {to: all, priority: 3, receipt: true, retention: 1d, attempts: 4}
  jobs: {handler: "command:cat", retry_backoff_min: 2s, rate: 10/s, concurrency: 2}
topics: {prices: {join: [ware]}}
schedules: {nightly: {every: 1d, channel: jobs, text: go}}
worker: {threads: 2}
angel: {drain: 10s}
run: [daemon, server]
"""


def tree(*words):
    """What a verb of this tree says."""
    done = subprocess.run(
        [sys.executable, "-m", "dropr_core", *map(str, words)], capture_output=True, check=False, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_file_of_then_means_the_same(last_release, tmp_path):
    """The effective configuration of either version has the same values, defaults included; the tree may know more."""
    file = tmp_path / "shop.yaml"
    file.write_text(FILE)
    then = json.loads(last_release.dropr("config", "--json", "-c", file, cwd=tmp_path))
    now = json.loads(tree("config", "--json", "-c", file))
    assert list(differences(then, now)) == []


def differences(then, now, at="file"):
    """Where a value of then is another one now."""
    if isinstance(then, dict) and isinstance(now, dict):
        for word, value in then.items():
            if word not in now:
                yield f"{at}.{word}: gone"
            else:
                yield from differences(value, now[word], f"{at}.{word}")
    elif then != now:
        yield f"{at}: {then!r} is {now!r}"


def test_every_word_of_then_is_known(last_release, tmp_path):
    """The schema for editors has every option that it had, and every choice."""
    then = json.loads(last_release.dropr("schema", cwd=tmp_path))
    now = json.loads(tree("schema"))
    words = set(words_of(then))
    assert len(words) > 100
    assert words - set(words_of(now)) == set()


def words_of(schema, at=""):
    """Each option by its path, and each choice."""
    if isinstance(schema, list):
        for one in schema:
            yield from words_of(one, at)
    elif isinstance(schema, dict):
        for word, value in schema.items():
            if word == "properties":
                for name, inner in value.items():
                    yield f"{at}.{name}"
                    yield from words_of(inner, f"{at}.{name}")
            elif word == "enum":
                yield from (f"{at}={choice}" for choice in value)
            elif word in {"additionalProperties", "items"}:
                yield from words_of(value, f"{at}.*")
            else:
                yield from words_of(value, at)
