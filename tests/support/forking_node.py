"""The node of programs that fork while they import: a typed channel's module beside it, and an outbox in SQLite.

Owns its files. Must not know what the program does.
"""

import subprocess
import sys


def write_node(directory, text):
    """Its configuration, and what that names."""
    config = directory / "node.yaml"
    config.write_text(text)
    config.chmod(0o600)
    (directory / "orders.py").write_text("import dataclasses\n@dataclasses.dataclass\nclass Order:\n    sku: int\n")
    (directory / "app.db").touch()
    words = [sys.executable, "-m", "dropr_core", "outbox", "install", "-c", config]
    subprocess.run(words, capture_output=True, check=True, timeout=60)
