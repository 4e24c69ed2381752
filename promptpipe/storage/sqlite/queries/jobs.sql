-- name: insert_job
INSERT INTO jobs (id, queue, priority, due_at, kind, status, run_at, payload, dedupe_key, participant_id,
    max_attempts, created_at, updated_at)
VALUES (:id, :queue, :priority, coalesce(:run_at, :now), :kind, 'queued', coalesce(:run_at, :now), :payload,
    :dedupe_key, :participant_id, :max_attempts, coalesce(:created_at, :now), :now)

-- name: insert_jobs
-- *jobs* is a JSON array, times in it microseconds since 1970. What has a key that is taken is passed over.
INSERT INTO jobs (id, queue, priority, due_at, kind, status, run_at, payload, dedupe_key, participant_id,
    max_attempts, created_at, updated_at)
SELECT value ->> 'id', value ->> 'queue', value ->> 'priority', coalesce(value ->> 'run_at', :now), value ->> 'kind',
    'queued', coalesce(value ->> 'run_at', :now), value -> 'payload', value ->> 'dedupe_key',
    value ->> 'participant_id', value ->> 'max_attempts', :now, :now
FROM json_each(:jobs) WHERE true
ON CONFLICT (dedupe_key) WHERE dedupe_key IS NOT NULL DO NOTHING
RETURNING id

-- name: job
-- In one statement, or a job could move from one table to the other between two looks and be in neither.
SELECT id, queue, priority, kind, status, run_at, payload, dedupe_key, participant_id, attempt, max_attempts, worker,
    last_error, created_at, updated_at, NULL AS finished_at
FROM jobs WHERE id = :id
UNION ALL
SELECT id, queue, priority, kind, status, run_at, payload, dedupe_key, participant_id, attempt, max_attempts, worker,
    last_error, created_at, finished_at AS updated_at, finished_at
FROM job_history WHERE id = :id

-- name: job_to_change
SELECT *, NULL AS finished_at FROM jobs WHERE id = :id

-- name: jobs_by_key
SELECT *, NULL AS finished_at FROM jobs WHERE dedupe_key IN (SELECT value FROM json_each(:dedupe_keys))

-- name: taken_keys
SELECT dedupe_key FROM jobs WHERE dedupe_key IN (SELECT value FROM json_each(:dedupe_keys))
UNION ALL
SELECT dedupe_key FROM mailbox_events WHERE dedupe_key IN (SELECT value FROM json_each(:dedupe_keys)) AND seq IS NOT NULL
UNION ALL
SELECT key FROM job_dedupe WHERE key IN (SELECT value FROM json_each(:dedupe_keys)) AND until > :now

-- name: held_key
SELECT job_id FROM job_dedupe WHERE key = :key AND until > :now

-- name: hold_key
-- Nothing is returned when it is held by another, unless that is *replaced*.
INSERT INTO job_dedupe (key, job_id, until) VALUES (:key, :job_id, :now + :period)
ON CONFLICT (key) DO UPDATE SET job_id = excluded.job_id, until = excluded.until
WHERE job_dedupe.until <= :now OR job_dedupe.job_id = :replaced
RETURNING job_id

-- name: participants_of_jobs
SELECT DISTINCT participant_id FROM jobs
WHERE id IN (SELECT value FROM json_each(:ids)) AND participant_id IS NOT NULL

-- name: held_jobs
-- *leases* is a JSON object: the fences by the jobs' ids.
SELECT jobs.*, NULL AS finished_at FROM json_each(:leases) AS wanted JOIN jobs ON jobs.id = wanted.key
WHERE fence = wanted.value AND status = 'running'

-- name: claim_jobs
-- Level by level in the order of the index, and only as far as there is room. A row that still has a worker was leased
-- to one that vanished: that counts as a crash. *crashed* wants suspects.
UPDATE jobs SET
    crashes = crashes + (worker IS NOT NULL), status = 'running', worker = :worker,
    fence = (SELECT value + 1 FROM sequences WHERE name = 'fence'), due_at = :now + :lease, attempt = attempt + 1,
    updated_at = :now
WHERE id IN (
    SELECT id FROM (
        SELECT * FROM (
            SELECT id FROM jobs
            WHERE queue = :queue AND priority = 0 AND due_at <= :now
                AND (crashes + (worker IS NOT NULL) >= :suspect_from) = :crashed
                AND id NOT IN (SELECT value FROM json_each(:held))
            ORDER BY due_at, id LIMIT :limit
        )
        UNION ALL
        SELECT * FROM (
            SELECT id FROM jobs
            WHERE queue = :queue AND priority = 1 AND due_at <= :now
                AND (crashes + (worker IS NOT NULL) >= :suspect_from) = :crashed
                AND id NOT IN (SELECT value FROM json_each(:held))
            ORDER BY due_at, id LIMIT :limit
        )
        UNION ALL
        SELECT * FROM (
            SELECT id FROM jobs
            WHERE queue = :queue AND priority = 2 AND due_at <= :now
                AND (crashes + (worker IS NOT NULL) >= :suspect_from) = :crashed
                AND id NOT IN (SELECT value FROM json_each(:held))
            ORDER BY due_at, id LIMIT :limit
        )
        UNION ALL
        SELECT * FROM (
            SELECT id FROM jobs
            WHERE queue = :queue AND priority = 3 AND due_at <= :now
                AND (crashes + (worker IS NOT NULL) >= :suspect_from) = :crashed
                AND id NOT IN (SELECT value FROM json_each(:held))
            ORDER BY due_at, id LIMIT :limit
        )
    )
    LIMIT coalesce((
        SELECT CASE
            WHEN paused THEN 0
            WHEN concurrency IS NULL THEN :limit
            ELSE max(0, min(:limit, concurrency - (
                SELECT count(*) FROM jobs
                WHERE queue = :queue AND priority IN (0, 1, 2, 3) AND worker IS NOT NULL
                    AND due_at > :now AND due_at <= :now + :lease
            )))
        END
        FROM queues WHERE name = :queue
    ), :limit)
)
RETURNING id, fence, queue, priority, kind, status, run_at, payload, dedupe_key, participant_id, attempt, max_attempts, worker,
    last_error, created_at, updated_at, cancel_requested;
UPDATE sequences SET value = value + 1 WHERE name = 'fence' AND changes() > 0

-- name: next_due_job
-- What cannot be claimed then is no reason to wake up.
SELECT min((
    SELECT min(due_at) FROM jobs
    WHERE queue = wanted.value AND priority = level.value AND due_at > :now AND due_at <= :now + :sight
)) - :now AS due_in
FROM json_each(:queues) AS wanted CROSS JOIN json_each('[0, 1, 2, 3]') AS level LEFT JOIN queues ON name = wanted.value
WHERE paused IS NOT TRUE AND (
    concurrency IS NULL OR concurrency > (
        SELECT count(*) FROM jobs
        WHERE queue = wanted.value AND priority IN (0, 1, 2, 3) AND worker IS NOT NULL
            AND due_at > :now AND due_at <= :now + :lease
    )
)

-- name: requeue_job
-- *given_back* is 1 when the attempt does not count.
UPDATE jobs SET
    status = 'queued', worker = NULL, crashes = 0, due_at = :now + :delay, attempt = attempt - :given_back,
    last_error = coalesce(:last_error, last_error), updated_at = :now
WHERE id = :id

-- name: renew_job
-- New time and payload, attempts counted anew; the new fence takes it from a worker that runs it.
UPDATE jobs SET
    status = 'queued', worker = NULL, crashes = 0, due_at = :run_at, run_at = :run_at, payload = :payload,
    kind = :kind, queue = :queue, priority = :priority, participant_id = :participant_id,
    attempt = 0, max_attempts = :max_attempts, fence = :fence, cancel_requested = 0,
    rerun_at = NULL, rerun_payload = NULL, last_error = NULL, updated_at = :now
WHERE id = :id

-- name: set_rerun
UPDATE jobs SET rerun_at = :rerun_at, rerun_payload = :rerun_payload, updated_at = :now WHERE id = :id

-- name: request_cancel
UPDATE jobs SET cancel_requested = 1, updated_at = :now WHERE id = :id

-- name: finish_jobs
-- Those that were enqueued again while they ran stay: they are not at their end.
INSERT INTO job_history (id, queue, priority, kind, status, run_at, payload, dedupe_key, participant_id, attempt,
    max_attempts, worker, last_error, created_at, finished_at)
SELECT jobs.id, queue, priority, kind, 'done', run_at, payload, dedupe_key, participant_id, attempt, max_attempts, worker,
    last_error, created_at, :now
FROM json_each(:leases) AS wanted CROSS JOIN jobs ON jobs.id = wanted.key
WHERE fence = wanted.value AND status = 'running' AND rerun_at IS NULL;
DELETE FROM jobs WHERE id IN (
    SELECT jobs.id FROM json_each(:leases) AS wanted CROSS JOIN jobs ON jobs.id = wanted.key
    WHERE fence = wanted.value AND status = 'running' AND rerun_at IS NULL
)
RETURNING id

-- name: cancel_jobs
INSERT INTO job_history (id, queue, priority, kind, status, run_at, payload, dedupe_key, participant_id, attempt,
    max_attempts, worker, last_error, created_at, finished_at)
SELECT id, queue, priority, kind, 'canceled', run_at, payload, dedupe_key, participant_id, attempt, max_attempts,
    worker, last_error, created_at, :now
FROM jobs WHERE id IN (SELECT value FROM json_each(:ids));
DELETE FROM jobs WHERE id IN (SELECT value FROM json_each(:ids))

-- name: delete_job
DELETE FROM jobs WHERE id = :id

-- name: insert_job_history
INSERT INTO job_history (id, queue, priority, kind, status, run_at, payload, dedupe_key, participant_id, attempt,
    max_attempts, worker, last_error, created_at, finished_at)
VALUES (:id, :queue, :priority, :kind, :status, :run_at, :payload, :dedupe_key, :participant_id, :attempt,
    :max_attempts, :worker, :last_error, :created_at, :now)

-- name: insert_job_error
-- Of a job the newest 20 are kept.
DELETE FROM job_errors WHERE job_id = :job_id AND (at, attempt) < (
    SELECT at, attempt FROM job_errors WHERE job_id = :job_id ORDER BY at DESC, attempt DESC LIMIT 1 OFFSET 18
);
INSERT INTO job_errors (job_id, attempt, at, type, message, worker)
VALUES (:job_id, :attempt, :now, :type, :message, :worker)

-- name: extend_jobs
UPDATE jobs SET due_at = :now + :lease FROM json_each(:leases) AS wanted
WHERE jobs.id = wanted.key AND fence = wanted.value AND status = 'running'
RETURNING jobs.id AS key, fence, cancel_requested

-- name: jobs_of_worker
SELECT id FROM jobs WHERE worker = :worker ORDER BY id

-- name: abandon_running_jobs
-- Their worker is gone without a word.
UPDATE jobs SET status = 'queued', worker = NULL, crashes = crashes + 1, due_at = :now, updated_at = :now
WHERE worker IS NOT NULL AND worker <> :me

-- name: list_jobs
SELECT id, queue, priority, kind, status, run_at, payload, dedupe_key, participant_id, attempt, max_attempts, worker,
    last_error, created_at, updated_at, NULL AS finished_at
FROM jobs WHERE id < :after
    AND (:status IS NULL OR status = :status) AND (:kind IS NULL OR kind = :kind)
    AND (:queue IS NULL OR queue = :queue)
UNION ALL
SELECT id, queue, priority, kind, status, run_at, payload, dedupe_key, participant_id, attempt, max_attempts, worker,
    last_error, created_at, finished_at AS updated_at, finished_at
FROM job_history WHERE id < :after
    AND (:status IS NULL OR status = :status) AND (:kind IS NULL OR kind = :kind)
    AND (:queue IS NULL OR queue = :queue)
ORDER BY id DESC LIMIT :limit

-- name: list_jobs_of
SELECT id, queue, priority, kind, status, run_at, payload, dedupe_key, participant_id, attempt, max_attempts, worker,
    last_error, created_at, updated_at, NULL AS finished_at
FROM jobs WHERE participant_id = :participant_id AND id < :after
    AND (:status IS NULL OR status = :status) AND (:kind IS NULL OR kind = :kind)
    AND (:queue IS NULL OR queue = :queue)
UNION ALL
SELECT id, queue, priority, kind, status, run_at, payload, dedupe_key, participant_id, attempt, max_attempts, worker,
    last_error, created_at, finished_at AS updated_at, finished_at
FROM job_history WHERE participant_id = :participant_id AND id < :after
    AND (:status IS NULL OR status = :status) AND (:kind IS NULL OR kind = :kind)
    AND (:queue IS NULL OR queue = :queue)
ORDER BY id DESC LIMIT :limit

-- name: reschedule_job
-- Now, without *run_at*.
UPDATE jobs SET due_at = coalesce(:run_at, :now), run_at = coalesce(:run_at, :now), updated_at = :now WHERE id = :id

-- name: delete_job_history
DELETE FROM job_history WHERE id = :id
