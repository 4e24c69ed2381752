-- What a response handler needs to know of what it waits for: a JSON object.
ALTER TABLE registered_hooks ADD COLUMN data TEXT NOT NULL DEFAULT '{}';

-- By how much the jobs of a schedule are put off at most, by chance: microseconds.
ALTER TABLE schedules ADD COLUMN spread INTEGER NOT NULL DEFAULT 0;

-- Why operators' orders were not carried out, for whoever waits to hear it.
CREATE TABLE refusals (
    event_id   TEXT    NOT NULL PRIMARY KEY,
    reason     TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX refusals_created ON refusals (created_at);
