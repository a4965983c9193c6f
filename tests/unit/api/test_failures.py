"""The line that is made of an exception out of a handler."""

import subprocess
import sys

FAILS_WITHOUT_HANDLES = """
import resource
from dropr_core.api.failures import describe, excerpt

def handle():
    open("/dev/null")

most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (0, most))
try:
    handle()
except OSError as error:
    print(describe(error))
    assert excerpt(error) is not None
"""


def test_a_failure_for_want_of_file_handles_is_described(tmp_path):
    """Nothing is imported or opened for it: that would fail, too, and end the worker instead of one attempt."""
    program = tmp_path / "my_handlers.py"
    program.write_text(FAILS_WITHOUT_HANDLES)
    ran = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "OSError: [Errno 24] Too many open files: '/dev/null' (my_handlers.py:6)\n"


def test_the_place_is_in_code_that_is_neither_of_python_nor_installed(tmp_path):
    """A mistake in what a handler hands to a library is found where the handler stands."""
    installed = tmp_path / "lib" / "site-packages"
    installed.mkdir(parents=True)
    (installed / "strangers.py").write_text("import json\ndef read(text):\n    return json.loads(text)\n")
    program = tmp_path / "my_handlers.py"
    program.write_text(
        f"import sys\nsys.path.append({str(installed)!r})\nimport strangers\n"
        "from dropr_core.api.failures import describe\n"
        "try:\n    strangers.read('{')\nexcept ValueError as error:\n    print(describe(error))\n"
    )
    ran = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.endswith("(my_handlers.py:6)\n")
