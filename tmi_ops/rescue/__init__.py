"""Row rescue: rows that were deleted or changed are brought back from a past of the database into the living one.

1. `past.py` puts a past beside the living database: a cluster recovered to a moment, or a logical backup loaded.
2. `shape.py` reads both catalogues; `comparing.py` tells which rows were deleted, inserted or changed since.
3. `closure.py` follows foreign keys from the chosen rows; `conflicts.py` asks the living server what is in their way;
   `planning.py` decides, by policy, what of it comes back.
4. `execution.py` does it in one transaction, and `checks.py` compares the result with the past before it is committed.
5. `columns/` does the same for columns that were dropped, with what fell with them.

All the rows travel by COPY and are compared by joins of temporary tables, so memory does not grow with them. Joins that
may take long run on the past's server, which is ours alone.
"""
