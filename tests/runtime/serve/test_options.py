"""What is said where an extra is not installed."""

from __future__ import annotations

import pytest

from stpm.runtime.errors import BackendError
from stpm.runtime.serve.options import check_extra


def test_missing_packages_are_named_with_the_line_to_type() -> None:
    check_extra("numpy", "json")
    with pytest.raises(BackendError, match=r"needs absent_a, absent_b, .*'stpm\[fleet\]'\.$"):
        check_extra("numpy", "absent_a", "absent_b", extra="fleet")
