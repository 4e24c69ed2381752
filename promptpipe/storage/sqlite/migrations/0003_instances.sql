-- Processes that work on this database; here there is only ever one.

CREATE TABLE instances (
    worker     TEXT    PRIMARY KEY,
    process    TEXT    NOT NULL,              -- which one it is; only processes of the same machine can tell
    beats      INTEGER NOT NULL,              -- one more with each sign of life
    ready      INTEGER NOT NULL,              -- whether it takes webhooks
    started_at INTEGER NOT NULL,
    beat_at    INTEGER NOT NULL
) STRICT;
