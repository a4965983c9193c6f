"""The handler `django` keeps the contract of every handler."""

import json
import logging

import pytest
from dropr_django.handler import DjangoHandler

from dropr_core.testing import HandlerCase, HandlerContract


def body(path, *args):
    """A message that names a task."""
    return json.dumps({"task": f"support.django_shop.tasks.{path}", "args": args}).encode()


class TestDjango(HandlerContract):
    """Tasks are called by what a message says; what is no call is rejected."""

    @pytest.fixture
    def handler_case(self):
        """Tasks of the small project."""
        return HandlerCase(
            make=lambda: DjangoHandler("warehouse", logging.getLogger("test")), good=body("tell", "ada"),
            never=b"nonsense", later=body("again"), fails=body("fail"),
        )  # fmt: skip
