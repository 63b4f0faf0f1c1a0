"""What every tenant has. Where pricesync migrates the tenants its files make the table."""

from django.conf import settings
from django.db import models


class Product(models.Model):
    sku = models.CharField(max_length=64, unique=True)
    name = models.TextField()
    price = models.DecimalField(max_digits=12, decimal_places=2)

    class Meta:
        managed = settings.CATALOG == "customers"
        db_table = "products"
