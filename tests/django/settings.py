"""A django-tenants site. CATALOG says whose tenant tables it uses: those that pricesync's
shared files make (`tenants`), or those of its own migrations (`customers`)."""

import os

CATALOG = os.environ["CATALOG"]
SECRET_KEY = "of a test"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "web.urls"
DATABASES = {
    "default": {
        "ENGINE": "django_tenants.postgresql_backend",
        "HOST": os.environ["DATABASE_HOST"],
        "NAME": os.environ["DATABASE_NAME"],
        "USER": "postgres",
    }
}
DATABASE_ROUTERS = ["django_tenants.routers.TenantSyncRouter"]
MIDDLEWARE = ["django_tenants.middleware.main.TenantMainMiddleware"]
SHARED_APPS = ["django_tenants", "django.contrib.contenttypes", "django.contrib.auth", CATALOG]
TENANT_APPS = ["shop"]
INSTALLED_APPS = SHARED_APPS + TENANT_APPS
TENANT_MODEL = {"tenants": "tenants.Tenant", "customers": "customers.Client"}[CATALOG]
TENANT_DOMAIN_MODEL = f"{CATALOG}.Domain"
