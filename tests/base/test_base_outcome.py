"""The value that a finished request leaves behind."""

import pytest

from corelet.base.outcome import Outcome


def test_an_outcome_has_its_fields_and_no_others():
    outcome = Outcome({}, 200, 5, 53, 2, 284, 9, 2, 13, 292, 1, 7, 1.5)
    assert (outcome.status, outcome.core, outcome.total_requests, outcome.started) == (200, 9, 7, 1.5)
    assert (outcome.worker_id, outcome.response_headers, outcome.read_errors, outcome.write_errors) == (1, None, 0, 0)
    with pytest.raises(AttributeError):
        outcome.other = 1  # type: ignore[attr-defined]
