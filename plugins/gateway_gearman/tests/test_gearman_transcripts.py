"""gearmand and our door are told the same, scene by scene, and say the same."""

import gearman_scenes
import pytest
from support import clients

pytestmark = pytest.mark.e2e

DIFFERENCES = {
    # What differs, by scene: the line of gearmand's → ours (None: it is missing).
    "admin": {
        "show jobs: 'H2\\t0\\t0\\t1'": None,  # a job that only waits is not in memory
        "show unique jobs: 'b'": None,
    },
}


def transcript(scene, port):
    stage = gearman_scenes.Stage(port)
    try:
        scene(stage)
    except Exception as error:
        raise AssertionError("\n".join(["this far it went:", *stage.lines])) from error
    finally:
        stage.close()
    return stage.lines


@pytest.mark.parametrize("scene", gearman_scenes.SCENES, ids=lambda scene: scene.__name__)
def test_a_scene_is_the_same_at_gearmand_and_here(scene, shop, tmp_path):
    """What a client or worker hears does not tell which of the two it talks to, but for the differences on the page."""
    command = [
        clients.program("gearmand", "gearman-job-server"), "-p", "{port}", "-L", "127.0.0.1",
        "-l", str(tmp_path / "gearmand.log"), "--pid-file", str(tmp_path / "gearmand.pid"),
    ]  # fmt: skip
    with clients.server(command, tmp_path / "output.log") as port:
        expected = transcript(scene, port)
    changes = DIFFERENCES.get(scene.__name__, {})
    expected = [changes.get(line, line) for line in expected]
    assert transcript(scene, shop.port) == [line for line in expected if line is not None]
