"""The one library of runs: what is to be run, what a run left, and all of them as a table (docs/runs.md).

    from tools.runs import RunFolder, index
    df = index("output")                    # a pandas DataFrame, one row a run
    run = RunFolder(df.folder[0])           # run.cell, run.record, run.predictions ...

cell: a run as it is meant. record: results.json. inputs: what makes a run's result. folder: a run folder. index: many.
recipe, protocols: from a paper's table to cells. published: from a run back to the paper's value.
"""
from .index import index  # the function; first, so that no submodule takes its name

from .cell import Cell  # isort: skip
from .folder import RunFolder, below  # isort: skip
from .record import Record  # isort: skip

__all__ = ["Cell", "Record", "RunFolder", "below", "index"]
