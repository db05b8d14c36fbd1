"""Django as it is: plain views and its ORM on SQLite, in cores that take turns."""

from __future__ import annotations

import pytest
from harness import running
from stage import PRELUDE, Peer, at_gate, begin, finish, open_gate, unique

SITE = (
    PRELUDE
    + """
import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    INSTALLED_APPS=[],
    LOGGING_CONFIG=None,
    MIDDLEWARE=[],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of a test",
)
django.setup()

from django.core.exceptions import SynchronousOnlyOperation
from django.core.wsgi import get_wsgi_application
from django.db import connection, models, transaction
from django.http import HttpResponse
from django.urls import path


class Order(models.Model):
    name = models.TextField()

    class Meta:
        app_label = "shop"


with connection.schema_editor() as editor:
    editor.create_model(Order)
connection.close()


def names():
    return " ".join(Order.objects.order_by("id").values_list("name", flat=True))


def orders(request):
    return HttpResponse(names())


def add(request, name):
    Order.objects.create(name=name)
    return HttpResponse(names())


class Changed(Exception):
    pass


def rolled_back(request, name):
    try:
        with transaction.atomic():
            Order.objects.create(name=name)
            seen = names()
            gate(name)
            raise Changed
    except Changed:
        return HttpResponse(f"wrote {seen}, then {names()}")


def committed(request, before, name):
    with transaction.atomic():
        seen = names()
        gate(before)
        Order.objects.create(name=name)
        gate(name)
    return HttpResponse(f"saw {seen}, then {names()}")


def refused(request):
    try:
        return HttpResponse(names())
    except SynchronousOnlyOperation as error:
        return HttpResponse(f"{type(error).__name__}: {error}")


urlpatterns = [
    path("orders", orders),
    path("add/<name>", add),
    path("rolled_back/<name>", rolled_back),
    path("committed/<before>/<name>", committed),
    path("refused", refused),
]

application = get_wsgi_application()
"""
)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_views_and_the_orm_work_in_a_core_as_they_are(tmp_path, loop):
    with running(tmp_path, SITE, "--asyncio", "2", "--loop", loop) as server:
        assert server.get("/add/first", "uwsgi").body == b"first"
        with Peer(server) as peer:
            assert peer.get("/add/second").body == b"first second"
            assert peer.get("/orders").body == b"first second"
        assert "Traceback" not in server.log.text()


def test_two_transactions_in_two_cores_keep_apart_and_one_is_rolled_back(tmp_path):
    with running(tmp_path, SITE, "--asyncio", "3") as server:
        assert server.get("/add/old", "uwsgi").body == b"old"
        bad, before, good = unique("bad"), unique("before"), unique("good")
        first = begin(server, f"/rolled_back/{bad}", "uwsgi")
        at_gate(server, bad)  # it has written
        second = begin(server, f"/committed/{before}/{good}", "uwsgi")
        at_gate(server, before)  # both are in a transaction
        assert server.get("/orders", "uwsgi").body == b"old"
        open_gate(server, bad)
        assert finish(first).body == f"wrote old {bad}, then old".encode()
        open_gate(server, before)
        at_gate(server, good)  # it has written, and is not committed
        assert server.get("/orders", "uwsgi").body == b"old"
        open_gate(server, good)
        assert finish(second).body == f"saw old, then old {good}".encode()
        assert server.get("/orders", "uwsgi").body == f"old {good}".encode()


def test_with_a_visible_loop_the_orm_refuses_to_work(tmp_path):
    with running(tmp_path, SITE, "--asyncio", "2", "--running-loop", "visible") as server:
        reply = server.get("/refused", "uwsgi")
        assert reply.body.startswith(b"SynchronousOnlyOperation: ")
