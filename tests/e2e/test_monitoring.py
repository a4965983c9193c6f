"""A whole node under its angel, scraped and probed over HTTP as Prometheus and Kubernetes do; contrib/ names nothing
that is not there.
"""

import json
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from support.nodes import Road, eventually, free_port

ROOT = Path(__file__).resolve().parents[2]
ALERTS, DASHBOARD = ROOT / "contrib/prometheus/alerts.yml", ROOT / "contrib/grafana/dropr.json"
NAME = re.compile(r"\bdropr_[a-z_]+")
TOKEN = "a-token-of-a-test-node"
HANDLER = """
def work(work):
    return None
"""

pytestmark = pytest.mark.e2e


@pytest.fixture
def road(tmp_path):
    """Some nodes; whatever they started is gone after the test."""
    made = Road(tmp_path)
    yield made
    made.close()


def ask(url, token=""):
    """(status, text) of a page."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_a_node_is_scraped_and_probed(road):
    """`/metrics` has everything that the dashboard and the alerts name, for whoever has the token; `/livez` and
    `/readyz` answer without it, and `/livez` says no while a process is stopped.
    """
    module, url = road.write_handlers(HANDLER), f"http://127.0.0.1:{free_port()}"
    (shop, _) = road.build(
        "shop", "ware",
        shop={
            "monitor": {"listen": [url], "token": TOKEN}, "run": ["daemon", "server", "worker"],
            "channels": {"jobs": {"handler": f"python:{module}:work"}},
        },
    )  # fmt: skip
    with shop.opened() as node:
        node.put(b"x", channel="jobs")
        node.send(b"x", to="ware", channel="orders")
    up = shop.run("up", ready=False)
    eventually(lambda: ask(f"{url}/readyz")[0] == 200, timeout=60, what="a node that is ready")
    assert ask(f"{url}/livez") == (200, '{"ok":true,"problems":[]}')
    assert ask(f"{url}/metrics")[0] == 401

    def scraped():
        status, text = ask(f"{url}/metrics", TOKEN)
        assert status == 200, text
        found = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
        return found if "dropr_peer_last_answer_seconds" in found or wanted() <= found else None

    def wanted():
        said = set(NAME.findall(DASHBOARD.read_text()))
        for group in yaml.safe_load(ALERTS.read_text())["groups"]:
            said.update(name for rule in group["rules"] for name in NAME.findall(rule["expr"]))
        return said

    found = eventually(scraped, what="every metric that the dashboard and the alerts name")
    assert wanted() <= found
    assert len(wanted()) > 20
    (worker,) = [
        child["pid"] for child in json.loads((shop.data / "run" / "angel.json").read_text())["children"]
        if child["name"].startswith("worker")
    ]  # fmt: skip
    subprocess.run(["kill", "-STOP", str(worker)], check=True)
    try:
        eventually(lambda: ask(f"{url}/livez")[0] == 503, what="a node that is not alive")
        assert "stopped by a signal" in ask(f"{url}/livez")[1]
    finally:
        subprocess.run(["kill", "-CONT", str(worker)], check=True)
    eventually(lambda: ask(f"{url}/livez")[0] == 200, what="a node that is alive again")
    up.signal(signal.SIGTERM)
    assert up.wait(60) == 0
    assert ask(f"{url}/livez")[0] == 0


def test_the_dashboard_and_the_alerts_are_well_formed():
    """The dashboard is one that Grafana takes (ids, targets, a data source to be chosen), each alert has a severity and
    says what to do; promtool agrees where it is installed.
    """
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["uid"] == "dropr"
    assert dashboard["schemaVersion"] >= 36
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert all(panel["title"] and panel["description"] and panel["targets"] for panel in panels)
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 8
    for rule in rules:
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert rule["annotations"].keys() == {"summary", "description"}
    promtool = shutil.which("promtool")
    if promtool:
        subprocess.run([promtool, "check", "rules", str(ALERTS)], check=True, capture_output=True)
        fired = ALERTS.with_name("alerts_test.yml")  # which of them fire, and when
        subprocess.run([promtool, "test", "rules", str(fired)], check=True, capture_output=True)
