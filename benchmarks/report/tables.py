"""Tables of text, for the terminal, Markdown and HTML alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stpm.benchmarks.records.result_file import Record, write_result
from stpm.runtime.output.console import note

NUMBER_WIDTH = 10
"""Characters; a column with longer cells holds text."""
LABEL_WIDTH = 16


@dataclass(frozen=True)
class Row:
    """A line of a table; `published` ones stand beside what was measured."""

    cells: tuple[str, ...]
    published: bool = False


@dataclass(frozen=True)
class Table:
    """A table of text; a cell's second line, after a line break, qualifies its first."""

    title: str
    columns: tuple[str, ...]
    rows: list[Row] = field(default_factory=list)

    def add(self, *cells: str, published: bool = False) -> None:
        """Append a row, filled up with empty cells."""
        missing = len(self.columns) - len(cells)
        self.rows.append(Row((*cells, *[""] * missing), published))


def heading(title: str) -> str:
    """Begin a title with a capital letter, but leave the name of a file as it is."""
    first = title.split(" ", 1)[0]
    return title[:1].upper() + title[1:] if first.rstrip(",").isalpha() else title


def print_tables(tables: Sequence[Table]) -> None:
    """Print tables on a terminal."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console()
    for table in tables:
        shown = RichTable(title=table.title, box=SIMPLE, pad_edge=False, collapse_padding=True)
        for i, column in enumerate(table.columns):
            cells = [line for row in table.rows for line in row.cells[i].splitlines()]
            is_text = max(map(len, cells), default=0) > NUMBER_WIDTH
            shown.add_column(
                column if is_text else column.replace(" ", "\n", 1),
                justify="left" if is_text else "right",
                no_wrap=not is_text,
                min_width=LABEL_WIDTH if i == 0 else None,
            )
        for row in table.rows:
            shown.add_row(*row.cells, style="dim" if row.published else None)
        console.print(shown)


def show(tables: Sequence[Table], record: Record, out: Path | None) -> None:
    """Write a result file where one is asked for, and print the result's tables."""
    # First, so that a reader of the tables who stops early does not cost the result.
    if out is not None:
        write_result(out, record)
        note(f"{out}: written")
    print_tables(tables)
