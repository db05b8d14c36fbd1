"""Four views: three plain functions, one of which waits in the middle of a transaction, and a coroutine.

Each request runs on a core of its own, and `threading.local` is one per core: so is Django's database connection, and
with it the transaction. Both end with their request, as always.
"""

from __future__ import annotations

from typing import Any

import aiohttp
from django import forms
from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_POST

import corelet
from shop.models import Item


async def asked(path: str) -> int:
    """A price, from an upstream that takes its time."""
    async with aiohttp.ClientSession(settings.UPSTREAM) as session, session.get(path) as reply:
        reply.raise_for_status()
        found: dict[str, Any] = await reply.json()
        return int(found["price"])


def index(request: HttpRequest) -> HttpResponse:
    """The items. The session counts this browser's visits."""
    visits = request.session["visits"] = request.session.get("visits", 0) + 1
    return render(request, "index.html", {"items": Item.objects.order_by("name"), "visits": visits})


def stock(request: HttpRequest) -> JsonResponse:
    """What there is, and what was sold, as everybody else sees it."""
    return JsonResponse({item.name: [item.stock, item.sale_set.count()] for item in Item.objects.all()})


async def price(request: HttpRequest, number: int) -> JsonResponse:
    """A coroutine. Many of them wait at the same time, each on its core, in one worker."""
    item = await Item.objects.aget(pk=number)
    return JsonResponse({"item": item.name, "price": await asked(f"/items/{item.pk}")})


class Wish(forms.Form):
    """Who wants to buy, and for how much at most."""

    buyer = forms.SlugField(max_length=80)
    limit = forms.IntegerField(min_value=0)


class TooDear(Exception):
    """More than the buyer wants to pay."""


@require_POST
def buy(request: HttpRequest, number: int) -> JsonResponse:
    """Ask the price, take one off the stock, pay; if it is too dear, nothing of this has happened.

    A plain view that waits twice inside of one transaction. What others do meanwhile is in theirs.
    """
    form = Wish(request.POST)
    if not form.is_valid():
        return JsonResponse(form.errors, status=400)
    buyer, limit = form.cleaned_data["buyer"], form.cleaned_data["limit"]
    try:
        with transaction.atomic():
            item = get_object_or_404(Item, pk=number)
            cost = corelet.await_(asked(f"/price/{buyer}"))
            Item.objects.filter(pk=number).update(stock=F("stock") - 1)
            sale = item.sale_set.create(buyer=buyer, price=cost)
            fee = corelet.await_(asked(f"/payment/{buyer}"))
            if cost + fee > limit:
                raise TooDear
    except TooDear:
        return JsonResponse({"refused": f"{item} is {cost + fee} with its fee, more than {limit}"}, status=409)
    return JsonResponse({"bought": str(sale), "price": cost + fee})
