"""What is for sale, and what was sold."""

from __future__ import annotations

from django.db import models


class Item(models.Model):
    """A thing of which there are so many."""

    name = models.CharField(max_length=80, unique=True)
    stock = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return self.name


class Sale(models.Model):
    """One of them was bought."""

    item = models.ForeignKey(Item, on_delete=models.PROTECT)
    buyer = models.CharField(max_length=80)
    price = models.PositiveIntegerField()

    def __str__(self) -> str:
        return f"{self.item} for {self.buyer}"
