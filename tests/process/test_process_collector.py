"""The garbage collector passes over what was loaded, and comes less often, unless somebody wants it otherwise."""

from __future__ import annotations

import gc

import pytest
from harness import running
from masters import mastered

SHOWS = """
import gc
%s
def application(environ, start_response):
    start_response("200 OK", [])
    return [f"{gc.get_threshold()[0]} {gc.get_freeze_count() > 1000}".encode()]
"""


@pytest.mark.parametrize(
    ("own", "arguments", "threshold"),
    [
        ("", (), 50_000),
        ("", ("--gc-threshold", "9000"), 9000),
        ("", ("--gc-threshold", "0"), gc.get_threshold()[0]),
        ("gc.set_threshold(1234)", (), 1234),
    ],
    ids=["default", "option", "off", "application"],
)
def test_what_was_loaded_is_frozen_and_the_threshold_is_the_options_unless_the_application_has_one(
    tmp_path, own, arguments, threshold
):
    with running(tmp_path, SHOWS % own, *arguments) as server:
        assert server.get("/").body.decode() == f"{threshold} True"


def test_workers_of_a_preloaded_application_have_it_from_their_master(tmp_path):
    with mastered(tmp_path, SHOWS % "", "--preload") as server:
        assert server.get("/").body == b"50000 True"
