"""A configuration reached through symbolic links that are switched under it, as Kubernetes does with a ConfigMap."""

import pytest

from dropr_core.config.node import load
from dropr_core.errors import ConfigError

YAML = "node: shop\n"


@pytest.fixture
def mounted(tmp_path):
    """``dropr.yaml`` → ``..data/dropr.yaml``, and ``..data`` → the present generation; switches generations."""
    place = tmp_path / "etc"
    place.mkdir()

    def switch(generation):
        directory = place / f"..{generation}"
        directory.mkdir()
        (directory / "dropr.yaml").write_text(YAML)
        link = place / "..new"
        link.symlink_to(directory.name)
        link.rename(place / "..data")

    switch(1)
    (place / "dropr.yaml").symlink_to("..data/dropr.yaml")
    return place, switch


def test_the_store_stays_where_the_file_was_named_when_links_are_switched(mounted):
    """Relative paths count from the name, not from where the link leads today."""
    place, switch = mounted
    before = load(place / "dropr.yaml").data
    switch(2)
    assert load(place / "dropr.yaml").data == before == place / "shop-data"


def test_a_store_beside_the_real_file_is_never_replaced_by_an_empty_one(mounted):
    """Who kept the store where the link leads is told, with both places; nothing is made."""
    place, _switch = mounted
    kept = place / "..1" / "shop-data"
    kept.mkdir()
    (kept / "node.id").write_text("00" * 16)
    with pytest.raises(ConfigError, match=r"symbolic link.*empty store in .*/etc/shop-data.*/\.\.1/shop-data"):
        load(place / "dropr.yaml")
    (place / "shop-data").mkdir()
    (place / "shop-data" / "node.id").write_text("11" * 16)
    assert load(place / "dropr.yaml").data == place / "shop-data"
