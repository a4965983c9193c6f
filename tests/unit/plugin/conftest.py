"""What tests of plugins share: a context, and packages that are installed for one test."""

import importlib
import logging
import sys
import textwrap

import pytest
from stevedore import ExtensionManager

from dropr_core.contracts.context import Context
from dropr_core.system.clock import FakeClock


@pytest.fixture
def context(tmp_path):
    return Context("shop", tmp_path, FakeClock(), logging.getLogger("test.plugins"))


@pytest.fixture
def install(tmp_path, monkeypatch):
    """install(distribution, kind, name, code, version=...) puts a package into a directory of its own."""
    monkeypatch.setattr(ExtensionManager, "ENTRY_POINT_CACHE", {})
    monkeypatch.setattr("stevedore._cache._c._disable_caching", True)
    made = []

    def install(distribution, kind, name, code, version="1.2.3"):
        module = f"dropr_test_{distribution.replace('-', '_')}"
        site = tmp_path / f"site-{distribution}"
        info = site / f"{distribution}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[dropr.{kind}]\n{name} = {module}\n")
        (site / f"{module}.py").write_text("from dropr_core.hookspecs import hookimpl\n" + textwrap.dedent(code))
        monkeypatch.syspath_prepend(str(site))
        importlib.invalidate_caches()
        ExtensionManager.ENTRY_POINT_CACHE.clear()
        made.append(module)
        return module

    yield install
    for module in made:
        sys.modules.pop(module, None)
