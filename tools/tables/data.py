"""Rows and grids as CSV and JSON, unrounded."""
from __future__ import annotations

import json
from collections.abc import Iterable

from .grid import Grid, Line
from .layouts import protocol_of
from .rows import Row, mean, with_summaries


def records(rows: list[Row]) -> list[dict]:
    """A flat record per row, H and averages over targets among them; numbers as they were measured."""
    return [{
        "protocol": protocol_of(row), "dataset": row.dataset, "trainer": row.trainer, "config": row.config,
        "base_config": row.cell.config, "options": row.options, "words": row.words, "beyond_yaml": row.beyond,
        "variant": row.variant, "where": row.where, "shots": row.shots, "classes": row.classes or "all",
        "trained_on": row.source or None, "mean": row.mean, "std": row.spread, "n": len(row.found),
        "n_wanted": len(row.seeds), "seeds": {str(s): row.seeds[s] for s in sorted(row.seeds)},
        "missing_seeds": row.missing, "collapsed_seeds": {str(s): why for s, why in row.collapsed.items()},
        "published": row.published, "difference": row.difference,
        "published_from": row.published_from if row.published is not None else "", "seconds": mean(row.seconds),
        "learned_parameters": row.fact("learned_parameters"), "folder": str(row.folder) if row.folder else None}
        for row in with_summaries(rows)]


def as_json(grids: list[Grid], rows: list[Row]) -> str:
    """{"rows": as `records`, "tables": the same numbers as lines and columns}."""
    tables = [{"name": grid.name, "title": grid.title, "columns": grid.head, "lines": [
        {"labels": line.labels, "kind": line.kind, "values": [value.number for value in line.values],
         "over_first": [value.over for value in line.values]} for line in grid.lines]} for grid in grids]
    return json.dumps({"unit": "percent", "std": "population", "rows": records(rows), "tables": tables}, indent=2,
                      ensure_ascii=False)


def as_csv(rows: list[Row]) -> str:
    """One line per row; of several values in one field, pairs are written 1=93.1 and parted by spaces."""
    return _csv({key: _flat(value) for key, value in record.items()} for record in records(rows))


def grids_as_csv(grids: list[Grid]) -> str:
    """The lines of the tables; each column of numbers also has its std, how many seeds, and points above the first."""
    def line_of(grid: Grid, line: Line) -> dict:
        found = {"table": grid.title, **dict(zip(grid.labels, line.labels)), "kind": line.kind}
        for name, value in zip(grid.columns, line.values):
            found[name] = value.number
            if not value.signed:
                row = value.row
                found |= {f"{name} std": row.spread if row else None, f"{name} n": len(row.found) if row else None}
                found |= {f"{name} over first": value.over} if grid.ranked else {}
        return found

    return _csv(line_of(grid, line) for grid in grids for line in grid.lines)


def _flat(value):
    if isinstance(value, dict):
        return " ".join(f"{key}={'' if item is None else item}" for key, item in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else value


def _csv(lines: Iterable[dict]) -> str:
    import pandas

    return pandas.DataFrame(list(lines)).convert_dtypes().to_csv(index=False).rstrip("\n")
