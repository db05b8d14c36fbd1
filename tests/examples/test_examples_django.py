"""examples/django_site behind nginx, one worker with several cores: admin, sessions, an async view, transactions."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time

import pytest
import requests
from harness import PATIENCE_SECONDS, ROOT, Nginx, Server, select_pause
from upstreams import GatedUpstream

SITE = ROOT / "examples" / "django_site"
AT_ONCE = 20
PASSWORD = "of a test"


class Site:
    """The site with its database in a folder of its own, an upstream at the test's pace, and nginx in front."""

    def __init__(self, folder) -> None:
        self.database = folder / "shop.sqlite3"
        self.manage("migrate", "--verbosity", "0")
        self.manage("createsuperuser", "--noinput", "--username", "ada", "--email", "ada@example.org")
        self.upstream = GatedUpstream()
        options = ["--chdir", str(SITE), "--module", "shop.wsgi", "--asyncio", str(AT_ONCE + 5)]
        options += ["--env", f"SHOP_DATABASE={self.database}", "--env", f"UPSTREAM={self.upstream.url}"]
        self.server = Server(folder / "server", "", tuple(options))
        self.nginx = Nginx(folder / "nginx", f"location / {{ uwsgi_pass 127.0.0.1:{self.server.uwsgi[1]}; }}")

    def manage(self, *command: str) -> None:
        """One of Django's own commands."""
        paths = os.pathsep.join([str(ROOT), str(ROOT / "server")])
        environment = {
            **os.environ, "PYTHONPATH": paths, "SHOP_DATABASE": str(self.database),
            "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
        }  # fmt: skip
        subprocess.run([sys.executable, str(SITE / "manage.py"), *command], env=environment, check=True)

    def stop(self) -> None:
        self.nginx.stop()
        code = self.server.stop()
        self.upstream.stop()
        assert code == 0

    def url(self, path: str) -> str:
        return f"{self.nginx.url}{path}"

    def stock(self) -> dict[str, list[int]]:
        """Item -> in stock and sold, as another request sees it."""
        return requests.get(self.url("/stock"), timeout=PATIENCE_SECONDS).json()

    def links_to_the_database(self) -> int:
        """How many descriptors of the database the worker holds."""
        folder = f"/proc/{self.server.pid}/fd"
        count = 0
        for name in os.listdir(folder):
            try:
                count += os.readlink(f"{folder}/{name}") == str(self.database)
            except FileNotFoundError:
                continue
        return count

    def wait_until_links_are_closed(self) -> None:
        """A reply may be here a moment before its request has ended."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while links := self.links_to_the_database():
            assert time.monotonic() < deadline, f"{links} connections to the database are open, and nobody asks"
            select_pause()


class Browser(requests.Session):
    """One visitor: keeps cookies, and sends the CSRF token of the last page with a form."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def page(self, path: str) -> str:
        reply = self.get(self.site.url(path), timeout=PATIENCE_SECONDS)
        assert reply.status_code == 200, reply.text
        return reply.text

    def submit(self, path: str, **fields: object) -> requests.Response:
        fields["csrfmiddlewaretoken"] = self.cookies["csrftoken"]
        return self.post(self.site.url(path), data=fields, timeout=PATIENCE_SECONDS)

    def log_in(self) -> None:
        self.page("/admin/login/")
        reply = self.submit("/admin/login/?next=/admin/", username="ada", password=PASSWORD)
        assert "Site administration" in reply.text


class Asking(threading.Thread):
    """A request on its way."""

    def __init__(self, ask, *arguments, **options) -> None:
        super().__init__(daemon=True)
        self._call = lambda: ask(*arguments, **options)
        self.reply: requests.Response | None = None
        self.start()

    def run(self) -> None:
        self.reply = self._call()

    def answer(self) -> requests.Response:
        self.join(PATIENCE_SECONDS)
        assert self.reply is not None, "no answer"
        return self.reply


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("django"))
    yield site
    site.stop()


def added(site: Site, name: str, stock: int) -> int:
    """An item made in the admin; its number."""
    admin = Browser(site)
    admin.log_in()
    admin.page("/admin/shop/item/add/")
    reply = admin.submit("/admin/shop/item/add/", name=name, stock=stock)
    assert "was added successfully" in reply.text
    return int(re.search(rf'/admin/shop/item/(\d+)/change/">{name}<', admin.page("/admin/shop/item/"))[1])


def test_in_the_admin_an_object_is_added_and_changed(site):
    number = added(site, "lamp", 3)
    admin = Browser(site)
    admin.log_in()
    change = f"/admin/shop/item/{number}/change/"
    assert 'value="lamp"' in admin.page(change)
    assert "was changed successfully" in admin.submit(change, name="lantern", stock=4).text
    assert site.stock()["lantern"] == [4, 0]
    assert admin.page("/static/admin/css/base.css")


def test_without_the_csrf_token_a_form_is_refused_and_without_a_login_the_admin(site):
    visitor = Browser(site)
    visitor.page("/")
    reply = requests.post(site.url("/items/1/buy"), data={"buyer": "eve", "limit": 1}, timeout=PATIENCE_SECONDS)
    assert reply.status_code == 403
    assert 'name="password"' in visitor.page("/admin/shop/item/add/")


def test_a_session_counts_the_visits_of_its_own_browser(site):
    one, other = Browser(site), Browser(site)
    assert "Visit 1 of" in one.page("/")
    assert "Visit 2 of" in one.page("/")
    assert "Visit 1 of" in other.page("/")


def test_twenty_requests_are_inside_the_async_view_at_once(site):
    number = added(site, "clock", 1)
    path = f"/items/{number}"
    before = site.upstream.at[path]
    asking = [Asking(requests.get, site.url(f"{path}/price"), timeout=PATIENCE_SECONDS) for _ in range(AT_ONCE)]
    site.upstream.wait_until(lambda: site.upstream.at[path] == before + AT_ONCE, "all twenty wait for the upstream")
    assert site.stock()["clock"] == [1, 0]  # and a plain view is served meanwhile
    site.upstream.open(path=path)
    assert [one.answer().json() for one in asking] == [{"item": "clock", "price": 100 + 7 * len(path)}] * AT_ONCE


def test_two_transactions_that_wait_keep_apart_and_one_is_rolled_back(site):
    number = added(site, "globe", 5)
    upstream = site.upstream
    poor, rich = Browser(site), Browser(site)
    poor.page("/")
    rich.page("/")
    upstream.open(path="/price/poor")
    first = Asking(poor.submit, f"/items/{number}/buy", buyer="poor", limit=1)
    upstream.wait_until(lambda: upstream.at["/payment/poor"] == 1, "the first has written")
    second = Asking(rich.submit, f"/items/{number}/buy", buyer="rich", limit=1000)
    upstream.wait_until(lambda: upstream.at["/price/rich"] == 1, "the second is in its transaction too")
    assert site.stock()["globe"] == [5, 0]  # what the first has written, nobody else sees
    upstream.open(path="/payment/poor")
    assert (first.answer().status_code, "more than 1" in first.answer().json()["refused"]) == (409, True)
    assert site.stock()["globe"] == [5, 0]
    upstream.open(path="/price/rich")
    upstream.wait_until(lambda: upstream.at["/payment/rich"] == 1, "the second has written, and not committed")
    assert site.stock()["globe"] == [5, 0]
    upstream.open(path="/payment/rich")
    assert second.answer().json()["bought"] == "globe for rich"
    assert site.stock()["globe"] == [4, 1]


def test_a_wish_that_makes_no_sense_is_answered_with_what_is_wrong(site):
    visitor = Browser(site)
    visitor.page("/")
    reply = visitor.submit("/items/1/buy", buyer="no slug", limit="much")
    assert (reply.status_code, sorted(reply.json())) == (400, ["buyer", "limit"])


def test_database_connections_are_closed_at_the_end_of_their_requests(site):
    number = added(site, "vase", 2)
    upstream = site.upstream
    buyer = Browser(site)
    buyer.page("/")
    site.wait_until_links_are_closed()
    asking = Asking(buyer.submit, f"/items/{number}/buy", buyer="cy", limit=1000)
    upstream.wait_until(lambda: upstream.at["/price/cy"] == 1, "it is in its transaction")
    assert site.links_to_the_database() >= 1
    upstream.open(path="/price/cy")
    upstream.open(path="/payment/cy")
    assert asking.answer().status_code == 200
    site.wait_until_links_are_closed()
    upstream.open(path=f"/items/{number}")
    assert requests.get(site.url(f"/items/{number}/price"), timeout=PATIENCE_SECONDS).json()["item"] == "vase"
    site.wait_until_links_are_closed()


def test_none_of_this_left_a_traceback(site):
    assert site.stock()
    assert "Traceback" not in site.server.log.text()
