"""Which path is which view."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from shop import views

urlpatterns = [
    path("", views.index, name="index"),
    path("items/<int:number>/price", views.price, name="price"),
    path("items/<int:number>/buy", views.buy, name="buy"),
    path("stock", views.stock, name="stock"),
    path("admin/", admin.site.urls),
]
