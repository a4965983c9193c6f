"""One table."""

from django.db import models


class Order(models.Model):
    """What somebody wants, and which task packs it."""

    sku = models.IntegerField()
    count = models.IntegerField(default=1)
    task_id = models.CharField(max_length=36, default="")
    mailed = models.BooleanField(default=False)

    def __str__(self) -> str:
        return f"order {self.pk} of {self.sku}"
