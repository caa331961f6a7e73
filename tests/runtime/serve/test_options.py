"""What is said where an extra is not installed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stpm.runtime.errors import BackendError
from stpm.runtime.serve.cli import main
from stpm.runtime.serve.options import check_extra
from stpm.runtime.site.cli import main as calibrate


def test_missing_packages_are_named_with_the_line_to_type() -> None:
    check_extra("numpy", "json")
    with pytest.raises(BackendError, match=r"needs absent_a, absent_b, .*'stpm\[fleet\]'\.$"):
        check_extra("numpy", "absent_a", "absent_b", extra="fleet")


@pytest.mark.parametrize("command", ["triton", "openvino"])
def test_a_graph_that_does_not_score_by_itself_is_not_served(
    command: str, weave: Path, data_root: Path, tmp_path: Path
) -> None:
    line = Path(shutil.copytree(weave, tmp_path / "line.stpm"))
    good = str(data_root / "weave/train/good")
    assert CliRunner().invoke(calibrate, [str(line), good, "--min-area", "9"]).exit_code == 0
    result = CliRunner().invoke(main, [command, str(line), str(tmp_path / "models")])
    assert result.exit_code == 1
    assert "serve it with stpm-serve triton --backend python" in result.stderr
    assert not (tmp_path / "models").exists()
