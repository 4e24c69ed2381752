-- Processes that work on this database.

CREATE TABLE instances (
    worker     text COLLATE "C" PRIMARY KEY,
    process    text             NOT NULL,                       -- which one it is; only processes of the same machine can tell
    beats      bigint           NOT NULL,                       -- one more with each sign of life
    ready      boolean          NOT NULL,                       -- whether it takes webhooks
    started_at timestamptz      NOT NULL,
    beat_at    timestamptz      NOT NULL
);
