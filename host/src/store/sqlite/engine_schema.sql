-- The engine's tables and indexes as they are defined, to notice that an app migration touched their names.
SELECT group_concat(type || ' ' || name || ' ' || tbl_name || ' ' || coalesce(sql, ''), char(10)) FROM (
    SELECT type, name, tbl_name, sql FROM sqlite_schema
    WHERE lower(name) GLOB 'semel_*' OR lower(tbl_name) GLOB 'semel_*' ORDER BY type, name
)
