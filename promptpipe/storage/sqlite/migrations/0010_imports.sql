-- How far what is brought in from another database has come.
CREATE TABLE imports (
    source     TEXT    NOT NULL,              -- the database's fingerprint
    place      TEXT    NOT NULL,              -- where it was, without secrets
    name       TEXT    NOT NULL,              -- of one of its tables
    position   TEXT,                          -- of the last row read, in the table's own order
    finished   INTEGER NOT NULL,
    rows_read  INTEGER NOT NULL,
    imported   INTEGER NOT NULL,
    skipped    INTEGER NOT NULL,
    problems   INTEGER NOT NULL,
    listed     TEXT    NOT NULL,              -- the first problems: a JSON array
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (source, name)
) STRICT, WITHOUT ROWID;
