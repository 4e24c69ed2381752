-- Queues that an operator has said something about; others exist by the jobs in them.
CREATE TABLE queues (
    name        TEXT    PRIMARY KEY,
    paused      INTEGER NOT NULL DEFAULT 0,   -- nothing of it is claimed
    concurrency INTEGER,                      -- how many of its jobs may run at once; NULL: any
    updated_at  INTEGER NOT NULL
) STRICT;

-- Dedupe keys that stay taken for a while after their job was enqueued, whatever becomes of it.
CREATE TABLE job_dedupe (
    key    TEXT    PRIMARY KEY,
    job_id TEXT    NOT NULL,
    until  INTEGER NOT NULL
) STRICT;

CREATE INDEX job_dedupe_until ON job_dedupe (until);

-- Each index costs every claim. What runs is counted, where a queue is limited, among what is due within a lease's length;
-- and what a worker that is gone held is found by reading all that is live.
DROP INDEX jobs_worker;
