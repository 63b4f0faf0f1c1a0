"""The tables of pricesync's tenant files, in as many migrations."""

from django.db import models
from django.db.models.functions import Lower


class User(models.Model):
    username = models.CharField(max_length=150)
    email = models.CharField(max_length=254)
    password = models.CharField(max_length=255)
    is_superuser = models.BooleanField(default=False)
    is_staff = models.BooleanField(default=False)
    is_active = models.BooleanField(default=True)
    date_joined = models.DateTimeField(auto_now_add=True)
    last_login = models.DateTimeField(null=True)
    locale = models.CharField(max_length=16, null=True)

    class Meta:
        db_table = "users"
        constraints = [models.UniqueConstraint(Lower("username"), name="users_username_key")]
        indexes = [models.Index(Lower("email"), name="users_email_idx")]


class Product(models.Model):
    sku = models.CharField(max_length=64, unique=True)
    name = models.TextField()
    price = models.DecimalField(max_digits=12, decimal_places=2)
    currency = models.CharField(max_length=3, default="VND")
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    brand = models.TextField(null=True)

    class Meta:
        db_table = "products"
        constraints = [
            models.CheckConstraint(check=models.Q(price__gte=0), name="products_price_not_negative"),
            models.CheckConstraint(check=models.Q(currency__regex="^[A-Z]{3}$"), name="products_currency_is_code"),
        ]
        indexes = [
            models.Index(fields=["name"], condition=models.Q(is_active=True), name="products_active_name_idx"),
            models.Index(fields=["brand"], condition=models.Q(brand__isnull=False), name="products_brand_idx"),
        ]


class PriceHistory(models.Model):
    product = models.ForeignKey(Product, models.CASCADE, db_index=False)
    price = models.DecimalField(max_digits=12, decimal_places=2)
    valid_from = models.DateTimeField(auto_now_add=True)
    valid_to = models.DateTimeField(null=True)
    changed_by = models.ForeignKey(User, models.SET_NULL, null=True, db_index=False, db_column="changed_by")

    class Meta:
        db_table = "price_history"
        constraints = [
            models.CheckConstraint(check=models.Q(price__gte=0), name="price_history_price_check"),
            models.CheckConstraint(
                check=models.Q(valid_to__isnull=True) | models.Q(valid_to__gt=models.F("valid_from")),
                name="price_history_period",
            ),
            models.UniqueConstraint(
                fields=["product"], condition=models.Q(valid_to__isnull=True), name="price_history_current_key"
            ),
        ]
        indexes = [models.Index(fields=["product", "-valid_from"], name="price_history_curve_idx")]


class Subscription(models.Model):
    user = models.ForeignKey(User, models.CASCADE, db_index=False)
    plan = models.CharField(max_length=32)
    status = models.CharField(max_length=16, default="active")
    started_at = models.DateTimeField(auto_now_add=True)
    ends_at = models.DateTimeField(null=True)
    trial_days = models.IntegerField(null=True, default=14)

    class Meta:
        db_table = "subscriptions"
        constraints = [
            models.CheckConstraint(
                check=models.Q(status__in=["trial", "active", "past_due", "cancelled"]),
                name="subscriptions_status_known",
            ),
            models.CheckConstraint(
                check=models.Q(ends_at__isnull=True) | models.Q(ends_at__gt=models.F("started_at")),
                name="subscriptions_period",
            ),
            models.CheckConstraint(
                check=models.Q(trial_days__gte=0, trial_days__lte=365), name="subscriptions_trial_days_sane"
            ),
        ]
        indexes = [
            models.Index(fields=["user"], name="subscriptions_user_idx"),
            models.Index(
                fields=["ends_at"],
                condition=models.Q(status__in=["trial", "active"]),
                name="subscriptions_ending_idx",
            ),
        ]
