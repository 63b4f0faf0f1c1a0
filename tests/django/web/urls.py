from django.http import JsonResponse
from django.urls import path

from shop.models import Product


def products(request):
    names = Product.objects.order_by("sku").values_list("name", flat=True)
    return JsonResponse({"tenant": request.tenant.name, "schema": request.tenant.schema_name, "products": list(names)})


urlpatterns = [path("products/", products)]
