"""What bench/cache.py asks: uwsgi.cache_get and cache_update in a loop inside a view.

/get/100/5000 makes 5,000 calls with values of 100 bytes over 500 keys, and answers the microseconds of one call: by the
clock, and of this process' CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import uwsgi

KEYS = [f"key:{number}" for number in range(500)]


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Measure, and say what was measured."""
    _, what, size, count = environ["PATH_INFO"].split("/")
    value = b"x" * int(size)
    wrong = sum(uwsgi.cache_update(key, value) is not True for key in KEYS)
    began, cpu_began = time.perf_counter(), time.process_time()
    if what == "get":
        for number in range(int(count)):
            wrong += len(uwsgi.cache_get(KEYS[number % 500]) or b"") != len(value)
    else:
        for number in range(int(count)):
            wrong += uwsgi.cache_update(KEYS[number % 500], value) is not True
    us = (time.perf_counter() - began) * 1e6 / int(count)
    cpu_us = (time.process_time() - cpu_began) * 1e6 / int(count)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{us} {cpu_us} {wrong}".encode()]
