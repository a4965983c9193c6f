"""contrib/: what a machine without a container engine can know of a Containerfile, a compose file, a StatefulSet."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml
from support import clients
from support.nodes import PATIENCE, eventually, free_port

ROOT = Path(__file__).resolve().parents[2]
CONTRIB = ROOT / "contrib"
CONTAINERFILE = CONTRIB / "container" / "Containerfile"
COMPOSE = CONTRIB / "compose" / "compose.yaml"
KUBERNETES = CONTRIB / "kubernetes" / "node.yaml"


def instructions():
    """(instruction, arguments) of the Containerfile, in order."""
    text = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", CONTAINERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE))
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def last(name):
    """The arguments of the last instruction of this name."""
    return [rest for instruction, rest in instructions() if instruction == name][-1]


def manifests():
    """The objects of the Kubernetes file, by kind."""
    return {each["kind"]: each for each in yaml.safe_load_all(KUBERNETES.read_text(encoding="utf-8"))}


def seconds(text):
    """``40s`` as a number."""
    return int(re.fullmatch(r"(\d+)s", text)[1])


def drain():
    """How long a node may take to end."""
    from dropr_core.config.schema import AngelConfig, WorkerConfig

    return max(AngelConfig().drain, WorkerConfig().drain)


def test_the_containerfile_is_clean():
    """hadolint has nothing to say of it."""
    program = Path(sys.executable).with_name("hadolint")
    if not program.exists():
        clients.missing("there is no hadolint here: make .venv/.installed")
    done = subprocess.run([str(program), str(CONTAINERFILE)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_what_is_copied_into_the_image_is_there():
    """Each source of a COPY is in the repository, and what is installed is copied before."""
    sources = [
        word for name, rest in instructions() if name == "COPY" and "--from" not in rest for word in rest.split()[:-1]
    ]
    assert sources
    assert [word for word in sources if not (ROOT / word).exists()] == []
    installed = re.findall(r"plugins/\w+", next(rest for name, rest in instructions() if name == "RUN"))
    assert [word for word in installed if not (ROOT / word / "pyproject.toml").is_file()] == []


def test_the_compose_file_is_valid():
    """It keeps to the compose specification, and names only configs, secrets and volumes that it has."""
    models = clients.module("compose_spec.models")
    document = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    plain = {key: value for key, value in document.items() if not key.startswith("x-")}
    models.ComposeSpecification.model_validate(plain)
    for service in plain["services"].values():
        assert [config["source"] for config in service["configs"] if config["source"] not in plain["configs"]] == []
        assert set(service["secrets"]) <= set(plain["secrets"])
        assert {volume.partition(":")[0] for volume in service["volumes"]} <= set(plain["volumes"])
        assert seconds(service["stop_grace_period"]) > drain()
        build = service["build"]
        assert (COMPOSE.parent / build["context"] / build["dockerfile"]).resolve() == CONTAINERFILE


def test_the_schemas_would_find_a_mistake():
    """A setting of the wrong type in the compose file, an unknown one in the StatefulSet: both are refused."""
    models = clients.module("compose_spec.models")
    checker = clients.module("kubernetes_validate")
    document = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    document["services"]["rome"]["read_only"] = ["perhaps"]
    plain = {key: value for key, value in document.items() if not key.startswith("x-")}
    with pytest.raises(ValueError, match="read_only"):
        models.ComposeSpecification.model_validate(plain)
    stateful = manifests()["StatefulSet"]
    stateful["spec"]["replica"] = 1
    with pytest.raises(checker.ValidationError):
        checker.validate(stateful, "1.33", strict=True)


def test_the_kubernetes_objects_are_valid():
    """Each keeps to its schema; there is one copy of the node, and it has more time to end than it needs."""
    checker = clients.module("kubernetes_validate")
    found = manifests()
    for each in found.values():
        checker.validate(each, "1.33", strict=True)
    spec = found["StatefulSet"]["spec"]
    assert spec["replicas"] == 1
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] > drain()
    assert (
        spec["selector"]["matchLabels"]
        == spec["template"]["metadata"]["labels"]
        == found["Service"]["spec"]["selector"]
    )
    user = re.search(r"--uid (\d+)", CONTAINERFILE.read_text(encoding="utf-8"))[1]
    assert spec["template"]["spec"]["securityContext"]["runAsUser"] == int(user)


def configurations():
    """Name → text of each node's YAML in contrib/."""
    found = {path.stem: path.read_text(encoding="utf-8") for path in sorted((CONTRIB / "compose").glob("*.yaml"))}
    del found["compose"]
    return found | {"kubernetes": manifests()["ConfigMap"]["data"]["node.yaml"]}


def at_home(text, directory):
    """A node's YAML with its places in a directory, and a file for each key that it names."""
    for key in re.findall(r"\$\{file:/run/secrets/([\w./-]+)\}", text):
        file = directory / "secrets" / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("k" * 43)
        file.chmod(0o600)
    text = text.replace("/run/secrets/", f"{directory}/secrets/").replace("/var/lib/dropr", f"{directory}/data")
    path = directory / "node.yaml"
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("name", configurations())
def test_each_node_in_it_is_well(name, tmp_path):
    """`dropr check` finds no mistake in any configuration of contrib/, and its secrets are those it is given."""
    path = at_home(configurations()[name], tmp_path)
    command = [sys.executable, "-m", "dropr_core", "check", "--json", "-c", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert json.loads(done.stdout)["problems"] == []
    if name != "kubernetes":
        given = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"][name]["secrets"]
        assert sorted(key.name for key in (tmp_path / "secrets").iterdir()) == sorted(given)


def test_keys_are_made_once(tmp_path):
    """`make-keys` makes each key that the compose file names, in a closed directory, and leaves existing ones."""
    script = tmp_path / "make-keys"
    script.write_bytes((COMPOSE.parent / "make-keys").read_bytes())
    for _ in range(2):
        subprocess.run(["sh", str(script)], check=True, timeout=60)
        made = {path.name: path.read_text() for path in (tmp_path / "keys").iterdir()}
    wanted = {Path(s["file"]).name for s in yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["secrets"].values()}
    assert set(made) == wanted
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert len(set(made.values())) == 3
    subprocess.run(["sh", str(script)], check=True, timeout=60)
    assert made == {path.name: path.read_text() for path in (tmp_path / "keys").iterdir()}


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_the_image_would_run_a_node(tmp_path):
    """Its commands, run here in a fresh environment, install a dropr whose entry point runs a node that becomes
    healthy by the image's own check and ends well on its stop signal.
    """
    place = tmp_path / "opt"
    env = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST", "DROPR_", "PIP_"))
    }

    def run(command):
        done = subprocess.run(["sh", "-ec", command], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    first, second = (
        part.replace("/opt/dropr", str(place))
        for part in next(rest for name, rest in instructions() if name == "RUN").split("&&")
    )
    run(first.replace("python -m venv", f"{sys.executable} -m venv"))
    here = sysconfig.get_paths()  # the libraries of this environment, but not its dropr: no network is needed
    (site,) = (place / "lib").glob("python*/site-packages")
    (site / "libraries.pth").write_text(f"{here['purelib']}\n{here['platlib']}\n")
    run(second.replace("pip install", "pip install --quiet --no-deps --no-index --no-build-isolation"))

    port = free_port()
    text = configurations()["berlin"].replace("0.0.0.0:8420", f"127.0.0.1:{port}") + "limits: {min_free: 0}\n"
    path = at_home(text, tmp_path)
    env |= {"DROPR_CONFIG": str(path), "PATH": f"{place}/bin:{env['PATH']}"}
    check = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
    command = [*json.loads(last("ENTRYPOINT")), *json.loads(last("CMD"))]
    with (tmp_path / "log").open("wb") as log:
        node = subprocess.Popen(command, cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:

        def healthy():
            return (
                subprocess.run(check, cwd=tmp_path, env=env, capture_output=True, timeout=60, check=False).returncode
                == 0
            )

        eventually(healthy, timeout=2 * PATIENCE, what="the image's check says that the node is healthy")
    finally:
        node.send_signal(getattr(signal, shlex.split(last("STOPSIGNAL"))[0]))
        code = node.wait(PATIENCE + 25)
    assert code == 0, (tmp_path / "log").read_text()
