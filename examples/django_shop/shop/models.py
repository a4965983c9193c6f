"""One table."""

from django.db import models, transaction

from shop.post import node


class Order(models.Model):
    """What somebody wants, and whether the warehouse has been told."""

    sku = models.IntegerField()
    told = models.BooleanField(default=False)

    def __str__(self) -> str:
        return f"order {self.pk} of {self.sku}"

    def announce(self) -> None:
        """Tell the warehouse once the transaction that is open now has committed."""
        transaction.on_commit(self.send)

    def send(self) -> None:
        """Tell it now. However often this is called, the warehouse gets one message."""
        node().send({"order": self.pk, "sku": self.sku}, channel="orders", dedup_key=f"order-{self.pk}")
        Order.objects.filter(pk=self.pk).update(told=True)

    @classmethod
    def send_missing(cls) -> int:
        """Send what a killed process has not sent; how many there were."""
        missing = list(cls.objects.filter(told=False))
        for order in missing:
            order.send()
        return len(missing)
