"""Nodes and connections for the tests of the transport and the backend."""

import contextlib
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))  # celery_rig, celery_tasks, kombu_rig


@pytest.fixture
def road(tmp_path):
    """Nodes in a directory of this test; what still runs at its end is killed."""
    from support.nodes import Road

    road = Road(tmp_path)
    with contextlib.closing(road):
        yield road


@pytest.fixture
def node_file(tmp_path):
    """Writes the YAML of a node and returns its path."""

    def write(name="shop", **more):
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"node": name, "limits": {"min_free": 0}, **more}))
        return path

    return write


@pytest.fixture
def connect():
    """Opens connections of Kombu to a node; they are closed with the test."""
    import dropr_kombu  # noqa: F401 - Kombu alone does not look for us
    from kombu import Connection

    with contextlib.ExitStack() as stack:

        def open_one(path, **options):
            return stack.enter_context(Connection(f"dropr://{path}", transport_options=options))

        yield open_one
