"""The node of this project, opened once in each process when it is first used, and again after a fork."""

import functools
import os

from django.conf import settings

import dropr_core as dropr


def node() -> dropr.Node:
    """The node of this process."""
    return _opened(os.getpid())


@functools.cache
def _opened(_pid: int) -> dropr.Node:
    return dropr.open(settings.DROPR_CONFIG)
