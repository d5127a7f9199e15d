"""Queries that estimate bloat from statistics and the page layout, or measure it with pgstattuple.

The estimate is the well-known one (github.com/ioguix/pgsql-bloat-estimation, BSD licence): from the average width of
the columns it computes how many pages the rows would need if nothing were wasted. It needs `pg_stats`, which shows a
column only to a role that may read it. TOAST rows are counted at four chunks a page.
"""

from __future__ import annotations

# A page has 24 bytes of header, a row 23 (rounded up to 24, plus a bit for each column where one is NULL) and a line
# pointer of 4; rows begin at multiples of 8. A dropped column is NULL in every row written since. Rows wider than half
# a page take a page each.
TABLE_ESTIMATE = """
WITH candidate AS (
  SELECT c.oid, c.oid::regclass::text AS name, n.nspname, c.relname, c.reltuples, c.relpages AS pages,
         coalesce(toast.relpages, 0) AS toast_pages, coalesce(toast.reltuples, 0) AS toast_rows,
         current_setting('block_size')::float8 AS page,
         coalesce((SELECT option_value::float8 FROM pg_options_to_table(c.reloptions)
                   WHERE option_name = 'fillfactor'), 100) AS fillfactor,
         (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
           AS columns, c.relnatts AS all_columns
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_class toast ON toast.oid = c.reltoastrelid
  WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_'
    AND n.nspname <> 'information_schema'
    AND (c.relpages + coalesce(toast.relpages, 0)) * current_setting('block_size')::bigint >= %s
), width AS (
  SELECT candidate.oid, count(s.attname) AS columns_known, bool_or(s.null_frac > 0) AS has_nulls,
         sum((1 - s.null_frac) * s.avg_width) AS data
  FROM candidate
  LEFT JOIN pg_stats s ON (s.schemaname, s.tablename) = (candidate.nspname, candidate.relname) AND NOT s.inherited
  GROUP BY candidate.oid
), tuple AS (
  SELECT candidate.*, columns_known,
         4 + ceil((23 + CASE WHEN has_nulls OR all_columns > columns THEN (all_columns + 7) / 8 ELSE 0 END) / 8.0) * 8
           + ceil(data / 8.0) * 8
           AS width
  FROM candidate JOIN width USING (oid)
)
SELECT name, ((pages + toast_pages) * page)::bigint AS size,
       CASE WHEN columns_known = columns AND reltuples > 0 THEN
         greatest(0, (pages + toast_pages)
           - ceil(reltuples / greatest(1, floor((page - 24) * fillfactor / 100 / width)))
           - ceil(toast_rows / 4.0)) * page
       -- known to be empty; before 14, zero also meant "never analyzed"
       WHEN reltuples = 0 AND current_setting('server_version_num')::int >= 140000 THEN (pages + toast_pages) * page
       END::bigint AS wasted
FROM tuple
ORDER BY wasted DESC NULLS LAST, size DESC
"""

# Free space and dead rows, less what fillfactor keeps free on purpose.
TABLE_EXACT = """
SELECT c.oid::regclass::text AS name, (s.table_len + coalesce(t.table_len, 0)) AS size,
       greatest(0, s.dead_tuple_len + s.free_space
         - s.table_len * (100 - coalesce((SELECT option_value::float8 FROM pg_options_to_table(c.reloptions)
                                          WHERE option_name = 'fillfactor'), 100)) / 100
         + coalesce(t.dead_tuple_len + t.free_space, 0))::bigint AS wasted
FROM pg_class c
CROSS JOIN LATERAL {schema}.pgstattuple(c.oid) s
LEFT JOIN LATERAL (SELECT * FROM {schema}.pgstattuple(c.reltoastrelid)) t ON c.reltoastrelid <> 0
WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND c.relnamespace::regnamespace::text !~ '^pg_'
  AND c.relnamespace <> 'information_schema'::regnamespace
  -- reading the size would wait for an ACCESS EXCLUSIVE lock
  AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.relation = c.oid AND l.mode = 'AccessExclusiveLock')
  AND pg_table_size(c.oid) >= %s
ORDER BY wasted DESC
"""

# A btree page has 24 bytes of header and 16 of its own; an entry has 8 (16 with NULLs) and a line pointer of 4.
INDEX_ESTIMATE = """
WITH candidate AS (
  SELECT c.oid, c.oid::regclass::text AS name, i.indrelid::regclass::text AS table_name,
         n.nspname, c.relname, c.reltuples, c.relpages AS pages,
         parent.relname AS parent, i.indkey, i.indnatts, c.relnatts AS columns,
         current_setting('block_size')::float8 AS page,
         coalesce((SELECT option_value::float8 FROM pg_options_to_table(c.reloptions)
                   WHERE option_name = 'fillfactor'), 90) AS fillfactor
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indexrelid
  JOIN pg_class parent ON parent.oid = i.indrelid
  JOIN pg_namespace n ON n.oid = parent.relnamespace
  JOIN pg_am am ON am.oid = c.relam AND am.amname = 'btree'
  WHERE i.indisvalid AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND c.relpages * current_setting('block_size')::bigint >= %s
), width AS (
  SELECT candidate.oid, count(s.attname) AS columns_known, bool_or(s.null_frac > 0) AS has_nulls,
         sum((1 - s.null_frac) * s.avg_width) AS data
  FROM candidate
  JOIN pg_attribute entry ON entry.attrelid = candidate.oid
  LEFT JOIN pg_attribute source
    ON source.attrelid = (SELECT indrelid FROM pg_index WHERE indexrelid = candidate.oid)
   AND source.attnum = candidate.indkey[entry.attnum - 1] AND source.attnum <> 0
  LEFT JOIN pg_stats s
    ON s.schemaname = candidate.nspname AND NOT s.inherited
   AND s.tablename = CASE WHEN source.attname IS NULL THEN candidate.relname ELSE candidate.parent END
   AND s.attname = coalesce(source.attname, entry.attname)
  GROUP BY candidate.oid
), entry AS (
  SELECT candidate.*, columns_known,
         4 + CASE WHEN has_nulls THEN 16 ELSE 8 END + ceil(data / 8.0) * 8 AS width
  FROM candidate JOIN width USING (oid)
)
SELECT name, table_name, (pages * page)::bigint AS size,
       CASE WHEN columns_known = columns AND reltuples >= 0 THEN
         greatest(0, pages - 1
           - ceil(reltuples / greatest(1, floor((page - 24 - 16) * fillfactor / 100 / width)))) * page
       END::bigint AS wasted
FROM entry
ORDER BY wasted DESC NULLS LAST, size DESC
"""

INDEX_EXACT = """
SELECT c.oid::regclass::text AS name, i.indrelid::regclass::text AS table_name, s.index_size AS size,
       greatest(0, s.index_size
         * (1 - least(1, s.avg_leaf_density / coalesce((SELECT option_value::float8
              FROM pg_options_to_table(c.reloptions) WHERE option_name = 'fillfactor'), 90)))
         + s.deleted_pages * current_setting('block_size')::bigint)::bigint AS wasted
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am am ON am.oid = c.relam AND am.amname = 'btree'
CROSS JOIN LATERAL {schema}.pgstatindex(c.oid) s
WHERE i.indisvalid AND c.relpersistence <> 't' AND c.relnamespace::regnamespace::text !~ '^pg_'
  AND c.relnamespace <> 'information_schema'::regnamespace
  AND pg_relation_size(c.oid) >= %s
ORDER BY wasted DESC
"""
