-- Recurring rules that make jobs.

CREATE TABLE schedules (
    id             TEXT    PRIMARY KEY,
    version        INTEGER NOT NULL,          -- counts its edits, from 1
    kind           TEXT    NOT NULL,          -- of the jobs it makes, as are queue, priority and payload
    queue          TEXT    NOT NULL,
    priority       INTEGER NOT NULL,
    payload        TEXT    NOT NULL CHECK (json_valid(payload)),
    participant_id TEXT,                      -- set: fires only while they are active
    minute         INTEGER,                   -- the rule, by fields ...
    hour           INTEGER,
    day            INTEGER,
    month          INTEGER,
    weekday        INTEGER,
    cron           TEXT,                      -- ... or by a line
    zone           TEXT    NOT NULL,
    misfire        TEXT    NOT NULL,          -- run | skip
    paused         INTEGER NOT NULL DEFAULT 0,
    next_at        INTEGER,                   -- NULL: paused
    last_at        INTEGER,                   -- the last time for which it made a job
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL
) STRICT;

CREATE INDEX schedules_due ON schedules (next_at, id) WHERE next_at IS NOT NULL;
CREATE INDEX schedules_stray ON schedules (id) WHERE next_at IS NULL AND NOT paused;
CREATE INDEX schedules_participant ON schedules (participant_id, id) WHERE participant_id IS NOT NULL;
