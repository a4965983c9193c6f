"""One page: GET lists the orders, POST takes one."""

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from shop.models import Order


class NoStockError(Exception):
    """It cannot be delivered."""


@csrf_exempt
def orders(request: HttpRequest) -> JsonResponse:
    """An order and its message are one: both, or neither."""
    if request.method != "POST":
        return JsonResponse({"orders": list(Order.objects.values_list("sku", flat=True))})
    sku = int(request.POST["sku"])
    try:
        with transaction.atomic():
            order = Order.objects.create(sku=sku)
            order.announce()
            if sku == 0:  # what can go wrong after it
                raise NoStockError(f"no stock of {sku}")
    except NoStockError as error:
        return JsonResponse({"error": str(error)}, status=409)
    return JsonResponse({"order": order.pk}, status=201)


urlpatterns = [path("orders/", orders)]
