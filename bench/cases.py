"""What is asked: three pages, a computation, and the request line and headers they are asked with.

A case is a value: it knows the bytes that go out and the body that must come back, and nothing of servers or of the
load generator. The headers stand here once, because the reply that is checked by hand and the load that is measured
must be the same request. They are those of a navigation in Chrome as nginx hands it on, with three
of the usual cookies: a bare "GET / HTTP/1.1" flatters every server that is slow at variables.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.apps.bench_app import HELLO, LARGE, computed

BROWSER_HEADERS = (
    ("Connection", "keep-alive"),
    ("Cache-Control", "max-age=0"),
    ("sec-ch-ua", '"Chromium";v="140", "Not=A?Brand";v="24", "Google Chrome";v="140"'),
    ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-platform", '"Linux"'),
    ("Upgrade-Insecure-Requests", "1"),
    (
        "User-Agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    ),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Accept-Language", "en-GB,en;q=0.9,de;q=0.8"),
    (
        "Cookie",
        "sessionid=8f14e45fceea167a5a36dedd4bea2543; csrftoken=Yx2mQ7cW1kR8; _ga=GA1.1.1804289383.1719846930",
    ),
)
FORM_TYPE = ("Content-Type", "application/x-www-form-urlencoded")


@dataclass(frozen=True)
class Case:
    """One kind of request and the body of the only right reply."""

    name: str
    title: str
    method: str
    path: str
    request_body: bytes
    reply_body: bytes


POST_BODY = (b"field=value&" * 1366)[:16_384]  # 16 KB: exactly the size the page is known by

COMPUTE_MS = 2


def compute_case(iterations: int) -> Case:
    """An application that holds the processor; its reply is the result of so many iterations."""
    return Case("compute", f"{COMPUTE_MS} ms of computing", "GET", "/compute", b"", computed(iterations))


PAGES = (
    Case("hello", "13-byte reply", "GET", "/hello", b"", HELLO),
    Case("large", "100 KB reply", "GET", "/large", b"", LARGE),
    Case("post", "16 KB POST", "POST", "/count", POST_BODY, b"16384 bytes"),
)
# How many iterations are COMPUTE_MS is found out at the beginning of a run (bench/compute.py).
CASES = (*PAGES, compute_case(0))
# Not measured: shows before the measurement that a body arrives byte for byte, which the count alone would not.
ECHO = Case("echo", "16 KB echo", "POST", "/echo", POST_BODY, POST_BODY)


def request_headers(case: Case) -> tuple[tuple[str, str], ...]:
    """The headers of a case without Host and Content-Length, which depend on the address and the body."""
    return (*BROWSER_HEADERS, FORM_TYPE) if case.request_body else BROWSER_HEADERS


def request_bytes(case: Case, host: str) -> bytes:
    """The case's request as it stands on the wire. `host` is the Host header's value."""
    lines = [f"{case.method} {case.path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in request_headers(case)]
    if case.request_body:
        lines.append(f"Content-Length: {len(case.request_body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + case.request_body
