"""The tenant tables as pricesync's shared files make them; Django only uses them."""

from django.db import models
from django_tenants.models import DomainMixin, TenantMixin


class Tenant(TenantMixin):
    auto_create_schema = False
    name = models.CharField(max_length=255)
    slug = models.SlugField(max_length=63, unique=True)
    created_at = models.DateTimeField()

    class Meta:
        managed = False
        db_table = "tenants_tenant"


class Domain(DomainMixin):
    class Meta:
        managed = False
        db_table = "tenants_domain"
