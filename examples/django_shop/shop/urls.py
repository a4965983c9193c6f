"""Two pages, and the admin: POST takes an order, GET says what became of it."""

from django.contrib import admin
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from shop.models import Order
from shop.tasks import mail, pack


class RefusedError(Exception):
    """What can go wrong after a task was enqueued."""


@csrf_exempt
def orders(request: HttpRequest) -> JsonResponse:
    """An order and its tasks are one: all, or none."""
    sku, count = int(request.POST["sku"]), int(request.POST.get("count", 1))
    try:
        with transaction.atomic():
            order = Order.objects.create(sku=sku, count=count)
            order.task_id = pack.enqueue(sku, count).id
            order.save()
            mail.enqueue(order.pk)
            if sku == 0:
                raise RefusedError("we do not sell that")
    except RefusedError as error:
        return JsonResponse({"error": str(error)}, status=409)
    return JsonResponse({"order": order.pk}, status=201)


def order(_request: HttpRequest, number: int) -> JsonResponse:
    """What became of one."""
    found = Order.objects.get(pk=number)
    result = pack.get_result(found.task_id)
    said = {"status": result.status, "mailed": found.mailed}
    if result.status == "SUCCESSFUL":
        said["value"] = result.return_value
    if result.errors:
        said["error"] = result.errors[-1].traceback.strip().splitlines()[-1]
    return JsonResponse(said)


urlpatterns = [path("orders/", orders), path("orders/<int:number>/", order), path("admin/", admin.site.urls)]
