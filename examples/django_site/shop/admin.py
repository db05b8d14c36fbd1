"""Both tables in the admin."""

from __future__ import annotations

from django.contrib import admin

from shop.models import Item, Sale


@admin.register(Item)
class ItemAdmin(admin.ModelAdmin):
    """The items and their stock."""

    list_display = ("name", "stock")
    search_fields = ("name",)


@admin.register(Sale)
class SaleAdmin(admin.ModelAdmin):
    """The sales."""

    list_display = ("item", "buyer", "price")
