-- Queues that an operator has said something about; others exist by the jobs in them.
CREATE TABLE queues (
    name        text        PRIMARY KEY,
    paused      boolean     NOT NULL DEFAULT false,             -- nothing of it is claimed
    concurrency integer,                                        -- how many of its jobs may run at once, on all instances; NULL: any
    updated_at  timestamptz NOT NULL
);

-- Dedupe keys that stay taken for a while after their job was enqueued, whatever becomes of it.
CREATE TABLE job_dedupe (
    key    text             PRIMARY KEY,
    job_id text COLLATE "C" NOT NULL,
    until  timestamptz      NOT NULL
);

CREATE INDEX job_dedupe_until ON job_dedupe (until);

-- Each index costs every claim. What runs is counted, where a queue is limited, among what is due within a lease's length;
-- and when a worker is gone, what it held is found by reading all that is live (a quarter of a second for a million).
DROP INDEX jobs_worker;

-- History is written in the order of its times, and pruned in it.
DROP INDEX job_history_finished;
CREATE INDEX job_history_finished ON job_history USING brin (finished_at) WITH (pages_per_range = 32);
CREATE INDEX job_history_ended ON job_history (status, finished_at) WHERE status <> 'done';

ALTER TABLE jobs SET (fillfactor = 70);

-- A message's status in an index's condition would make each change of it a new entry in all indexes.
DROP INDEX outbox_messages_in_doubt;
CREATE INDEX outbox_messages_in_doubt ON outbox_messages (doubt_until) WHERE doubt_until IS NOT NULL;
