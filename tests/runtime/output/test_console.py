"""What the commands make of errors."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from stpm.runtime.errors import DataError
from stpm.runtime.output.console import command, counted


@pytest.mark.parametrize(
    ("error", "stderr"),
    [
        (DataError("got X, expected Y; fix it."), "error: got X, expected Y; fix it.\n"),
        (OSError(28, "No space left on device"), "error: [Errno 28] No space left on device\n"),
        (BrokenPipeError(32, "Broken pipe"), ""),
    ],
)
def test_an_error_ends_with_one_sentence_at_most(error: Exception, stderr: str) -> None:
    def fail() -> None:
        raise error

    result = CliRunner().invoke(command(fail), [])
    assert result.exit_code == 1
    assert result.stderr == stderr


@pytest.mark.parametrize(("number", "said"), [(0, "0 images"), (1, "1 image"), (2, "2 images")])
def test_one_image_is_no_images(number: int, said: str) -> None:
    assert counted(number, "images") == said
