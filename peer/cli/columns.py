"""Tables of plain text."""

from collections.abc import Collection, Iterable, Sequence


def columns(head: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[str] = ()) -> str:
    """Return `rows` below `head`, each column as wide as it must be.

    Args:
        head: What the columns are called; empty for a table without a head.
        rows: Cells as text.
        right: The columns, by name, whose cells end at the same place.
    """
    table = [head, *rows] if any(head) else list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(head, row, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
