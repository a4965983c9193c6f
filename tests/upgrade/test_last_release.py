"""The last release runs beside this tree, as itself."""

import json

import dropr_core


def test_it_is_itself(last_release, tmp_path):
    """A process of the last release has its core and its plugins, and nothing of this tree."""
    assert last_release.dropr("--version", cwd=tmp_path) == f"dropr {last_release.version}\n"
    assert last_release.version != dropr_core.__version__
    code = (
        "import json, dropr_core, dropr_storage_fs, dropr_storage_sqlite, dropr_transport_curl, dropr_transport_zmq\n"
        "print(json.dumps([m.__file__ for m in (dropr_core, dropr_storage_fs, dropr_storage_sqlite,"
        " dropr_transport_curl, dropr_transport_zmq)]))"
    )
    places = json.loads(last_release.python("-c", code, cwd=tmp_path))
    assert all(place.startswith(str(last_release.directory)) for place in places)


def test_its_plugins_are_of_its_version(last_release, tmp_path):
    """Storages and transports that its list of plugins names come from its wheels."""
    listed = json.loads(last_release.dropr("plugins", "--json", cwd=tmp_path))
    ours = {row["distribution"]: row["version"] for row in listed["plugins"] if row["kind"] in {"storage", "transport"}}
    assert set(ours.values()) >= {last_release.version}
    assert ours["dropr-storage-fs"] == ours["dropr-transport-curl"] == last_release.version
