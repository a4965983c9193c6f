"""What the admin shows: a model without a table, so that it has its place and its permissions there.

Owns nothing that is stored: dead letters are in the node's store.
"""

from typing import ClassVar

from django.db import models


class DeadLetter(models.Model):  # type: ignore[misc]  # Django has no types
    """A message that nothing more is done with by itself. Its permissions: view; change (send again, bury); delete
    (wipe).
    """

    id = models.CharField(primary_key=True, max_length=36)

    class Meta:
        """No table."""

        managed = False
        verbose_name = "dead letter"
        verbose_name_plural = "dead letters"
        default_permissions: ClassVar = ("view", "change", "delete")

    def __str__(self) -> str:
        return f"message {self.pk}"
