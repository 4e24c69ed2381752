-- What a response handler needs to know of what it waits for: a JSON object.
ALTER TABLE registered_hooks ADD COLUMN data jsonb NOT NULL DEFAULT '{}';

-- By how much the jobs of a schedule are put off at most, by chance.
ALTER TABLE schedules ADD COLUMN spread interval NOT NULL DEFAULT '0';

-- Why operators' orders were not carried out, for whoever waits to hear it.
CREATE TABLE refusals (
    event_id   text COLLATE "C" PRIMARY KEY,
    reason     text             NOT NULL,
    created_at timestamptz      NOT NULL
);

CREATE INDEX refusals_created ON refusals (created_at);
