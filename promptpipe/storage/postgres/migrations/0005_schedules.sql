-- Recurring rules that make jobs.

CREATE TABLE schedules (
    id             text COLLATE "C" PRIMARY KEY,
    version        bigint           NOT NULL,                   -- counts its edits, from 1
    kind           text             NOT NULL,                   -- of the jobs it makes, as are queue, priority and payload
    queue          text             NOT NULL,
    priority       integer          NOT NULL,
    payload        jsonb            NOT NULL,
    participant_id text COLLATE "C",                            -- set: fires only while they are active
    minute         integer,                                     -- the rule, by fields ...
    hour           integer,
    day            integer,
    month          integer,
    weekday        integer,
    cron           text,                                        -- ... or by a line
    zone           text             NOT NULL,
    misfire        text             NOT NULL,                   -- run | skip
    paused         boolean          NOT NULL DEFAULT false,
    next_at        timestamptz,                                 -- NULL: paused
    last_at        timestamptz,                                 -- the last time for which it made a job
    created_at     timestamptz      NOT NULL,
    updated_at     timestamptz      NOT NULL
);

CREATE INDEX schedules_due ON schedules (next_at, id) WHERE next_at IS NOT NULL;
CREATE INDEX schedules_stray ON schedules (id) WHERE next_at IS NULL AND NOT paused;
CREATE INDEX schedules_participant ON schedules (participant_id, id) WHERE participant_id IS NOT NULL;
