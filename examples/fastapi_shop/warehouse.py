"""What the warehouse does with an order. Nothing of the web is needed there."""

from models import Order

import dropr_core as dropr


@dropr.on("orders")
def pack(order: Order) -> dict[str, int]:
    """The answer goes home with the receipt."""
    return {"packed": order.count}
