"""The name under which plugins import the words that options are declared with; they live in `config/options.py`."""

from dropr_core.config.options import *  # noqa: F403 - a second door to the same room, for plugins
