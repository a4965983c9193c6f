"""What is done elsewhere, or later."""

import django

if django.VERSION >= (6, 0):
    from django.tasks import task
else:
    from django_tasks import task


class NoStockError(Exception):
    """None left."""


@task(takes_context=True)
def pack(context, sku, count):
    """Run at the warehouse; what it returns comes home."""
    if sku == 13:
        raise NoStockError(f"no stock of {sku}")
    return {"packed": count, "attempt": context.attempt}


@task(queue_name="mails", priority=10)
def mail(order_id):
    """Run on this machine, by its own worker."""
    from shop.models import Order

    Order.objects.filter(pk=order_id).update(mailed=True)
