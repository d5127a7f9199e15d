"""Row rescue: restores deleted or changed rows from a past of the database into the live one.

1. `past.py` opens a past next to the live database: a cluster recovered to a moment, or a loaded logical backup.
2. `shape.py` reads both catalogues; `comparing.py` finds which rows were deleted, inserted or changed since.
3. `closure.py` follows foreign keys from the chosen rows; `conflicts.py` finds conflicts on the live server;
   `planning.py` decides by policy what to restore.
4. `execution.py` does it in one transaction, and `checks.py` compares the result with the past before the commit.
5. `columns/` does the same for dropped columns and the objects dropped with them.

All rows are moved by COPY and compared by joins of temporary tables, so memory does not grow with them. Joins that may
take long run on the past's server, which no other session uses.
"""
