"""The OpenAPI document, and schemathesis, which asks the running gateway what the document allows and forbids."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e


@pytest.mark.timeout(300)
def test_schemathesis_finds_nothing(make_door, tmp_path):
    """No crash, no answer that the document does not have, nothing taken that it forbids; refusals are as it says.

    One check is left out, ``positive_data_acceptance``: that a message must not expire before its delay is over, and
    that a body is one of three, are rules between fields, which parameters cannot say.
    """
    st = Path(sys.executable).with_name("st")
    if not st.exists() and not os.environ.get("CI"):
        pytest.skip("schemathesis is not installed: pip install -e '.[dev]'")
    door = make_door({"hold": "1s", "max_wait": "0s"}).start()
    phases = os.environ.get("SCHEMATHESIS_PHASES", "examples,fuzzing")  # coverage, too: it takes a minute
    words = [
        "run", f"{door.url}/openapi.json", "--exclude-path", "/channels/{channel}/stream", "--max-examples", "3",
        "--seed", "1", "--phases", phases, "--suppress-health-check", "all", "--exclude-checks",
        "positive_data_acceptance", "--no-color", "--request-timeout", "60", "--generation-database", ":memory:",
    ]  # fmt: skip
    done = subprocess.run([st, *words], cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    log = door.log.read_text()
    assert "defect" not in log
    assert "Traceback" not in log


def test_every_operation_can_be_found_by_its_document(door):
    """What is served is what is described: each path with each method is known, and nothing else."""
    document = door.ask("GET", "/openapi.json").json()
    for path, methods in document["paths"].items():
        there = path.format(channel="orders", id="00000000-0000-7000-8000-000000000000", handle="x")
        for method in {"GET", "POST", "PUT", "DELETE", "PATCH"} - {name.upper() for name in methods}:
            answer = door.ask(method, there)
            assert (answer.status_code, answer.json()["code"]) == (405, "method"), (method, path)
            assert set(answer.headers["Allow"].split(", ")) == {name.upper() for name in methods}
