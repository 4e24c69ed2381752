-- How far what is brought in from another database has come.
CREATE TABLE imports (
    source     text        NOT NULL,          -- the database's fingerprint
    place      text        NOT NULL,          -- where it was, without secrets
    name       text        NOT NULL,          -- of one of its tables
    position   text,                          -- of the last row read, in the table's own order
    finished   boolean     NOT NULL,
    rows_read  bigint      NOT NULL,
    imported   bigint      NOT NULL,
    skipped    bigint      NOT NULL,
    problems   bigint      NOT NULL,
    listed     jsonb       NOT NULL,          -- the first problems: a JSON array
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (source, name)
);
