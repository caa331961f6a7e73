"""What the commands share: logs on stderr, errors as one sentence, sizes as flags."""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Annotated

import typer

from stpm.runtime.errors import StpmError


def say(message: object) -> None:
    """Write a line of the result to stdout, at once.

    Not by typer.echo, which takes UTF-8 or question marks where the output's encoding is ASCII.
    """
    print(message, flush=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(version("stpm"))
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
]


def note(message: str) -> None:
    """Write a line of log to stderr."""
    print(message, file=sys.stderr, flush=True)


def refuse_ignored(context: typer.Context, ignored: Collection[str], where: str) -> None:
    """Refuse a flag that was given although it means nothing there.

    Args:
        context: of the command.
        ignored: flags, such as "--compile".
        where: what does not use them.

    Raises:
        typer.BadParameter: one of them was given.
    """
    for parameter in context.command.params:
        found = next((flag for flag in parameter.opts if flag in ignored), None)
        source = context.get_parameter_source(parameter.name or "")
        if found is not None and source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"got {found}, which {where} does not use; leave it out.")


def counted(number: int, things: str) -> str:
    """Say how many there are of things: "1 image", "2 images"."""
    return f"{number} {things.removesuffix('s') if number == 1 else things}"


@contextmanager
def progress(label: str, total: int, unit: str = "images") -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal, a plain line elsewhere; yields what advances it."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        note(f"{label}: {counted(total, unit)}")
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)


def escape_output() -> None:
    """Write what the output's encoding lacks, such as a name in a code page, as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def known_errors(function: Callable[..., None]) -> Callable[..., None]:
    """Turn known errors, and those of the disk, into a sentence on stderr and exit code 1."""

    @functools.wraps(function)
    def wrapped(*args: object, **kwargs: object) -> None:
        escape_output()
        try:
            function(*args, **kwargs)
        except BrokenPipeError:
            raise  # the reader of our output has seen enough: typer ends quietly
        except MemoryError as error:
            reason = " ".join(str(error).split()) or "more than there is"
            note(f"error: not enough memory ({reason}); use a smaller size or fewer images.")
            raise typer.Exit(1) from None
        except (StpmError, OSError) as error:
            sentence = f"error: {error}"
            note(typer.style(sentence, fg="red") if sys.stderr.isatty() else sentence)
            raise typer.Exit(1) from None

    return wrapped


def command(function: Callable[..., None]) -> typer.Typer:
    """Make a program of one command."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(known_errors(function))
    return app


def parse_size(text: str) -> tuple[int, int]:
    """Read "HxW" or "N" as (height, width).

    Raises:
        typer.BadParameter: anything else.
    """
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(p.isdecimal() and int(p) > 0 for p in parts):
        raise typer.BadParameter(
            f"got size {text!r}, expected HxW such as 1024x768, or one number."
        )
    return int(parts[0]), int(parts[-1])
