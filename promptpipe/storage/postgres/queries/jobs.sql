-- name: insert_job
INSERT INTO jobs (id, queue, priority, due_at, kind, status, run_at, payload, dedupe_key, participant_id,
    max_attempts, created_at, updated_at)
VALUES (:id, :queue, :priority, coalesce(:run_at, promptpipe_now()), :kind, 'queued', coalesce(:run_at, promptpipe_now()), :payload,
    :dedupe_key, :participant_id, :max_attempts, coalesce(:created_at, promptpipe_now()), promptpipe_now())

-- name: insert_jobs
-- *jobs* is a JSON array, times in it microseconds since 1970. What has a key that is taken is passed over.
INSERT INTO jobs (id, queue, priority, due_at, kind, status, run_at, payload, dedupe_key, participant_id,
    max_attempts, created_at, updated_at)
SELECT id, queue, priority, coalesce(at, promptpipe_now()), kind, 'queued', coalesce(at, promptpipe_now()), payload, dedupe_key,
    participant_id, max_attempts, promptpipe_now(), promptpipe_now()
FROM (
    SELECT *, 'epoch'::timestamptz + run_at * interval '1 microsecond' AS at
    FROM jsonb_to_recordset(:jobs::jsonb) AS job (id text, queue text, priority integer, run_at bigint, kind text,
        payload jsonb, dedupe_key text, participant_id text, max_attempts integer)
) AS job
ORDER BY dedupe_key, id
ON CONFLICT (dedupe_key) WHERE dedupe_key IS NOT NULL DO NOTHING
RETURNING id

-- name: job
-- In one statement, or a job could move from one table to the other between two looks and be in neither.
SELECT id, queue, priority, kind, status, run_at, payload, dedupe_key, participant_id, attempt, max_attempts, worker,
    last_error, created_at, updated_at, NULL::timestamptz AS finished_at
FROM jobs WHERE id = :id
UNION ALL
SELECT id, queue, priority, kind, status, run_at, payload, dedupe_key, participant_id, attempt, max_attempts, worker,
    last_error, created_at, finished_at AS updated_at, finished_at
FROM job_history WHERE id = :id

-- name: job_to_change
SELECT *, NULL::timestamptz AS finished_at FROM jobs WHERE id = :id FOR UPDATE

-- name: jobs_by_key
-- Locked in the order in which everybody does.
SELECT *, NULL::timestamptz AS finished_at FROM jobs WHERE dedupe_key = ANY (:dedupe_keys) AND dedupe_key IS NOT NULL
ORDER BY id FOR UPDATE

-- name: taken_keys
SELECT dedupe_key FROM jobs WHERE dedupe_key = ANY (:dedupe_keys)
UNION ALL
SELECT dedupe_key FROM mailbox_events WHERE dedupe_key = ANY (:dedupe_keys) AND seq IS NOT NULL
UNION ALL
SELECT key FROM job_dedupe WHERE key = ANY (:dedupe_keys) AND until > promptpipe_now()

-- name: held_key
SELECT job_id FROM job_dedupe WHERE key = :key AND until > promptpipe_now()

-- name: hold_key
-- Nothing is returned when it is held by another, unless that is *replaced*.
INSERT INTO job_dedupe (key, job_id, until) VALUES (:key, :job_id, promptpipe_now() + :period)
ON CONFLICT (key) DO UPDATE SET job_id = excluded.job_id, until = excluded.until
WHERE job_dedupe.until <= promptpipe_now() OR job_dedupe.job_id = :replaced
RETURNING job_id

-- name: participants_of_jobs
SELECT DISTINCT participant_id FROM jobs
WHERE id = ANY (:ids) AND participant_id IS NOT NULL

-- name: held_jobs
-- *leases* is a JSON object: the fences by the jobs' ids.
SELECT j.*, NULL::timestamptz AS finished_at
FROM jsonb_each_text(:leases::jsonb) AS wanted (id, fence) JOIN jobs j ON j.id = wanted.id
WHERE j.fence = wanted.fence::bigint AND j.status = 'running' ORDER BY j.id FOR UPDATE OF j

-- name: lock_limited_queue
-- Who claims from a queue that is limited counts what runs of it: one after the other.
SELECT name FROM queues WHERE name = :queue AND concurrency IS NOT NULL FOR UPDATE

-- name: claim_jobs
-- Level by level in the order of the index, from where the last claim ended (*floors*), and only as far as there is
-- room. A row that still has a worker was leased to one that vanished: that counts as a crash. *crashed* wants suspects.
WITH room AS MATERIALIZED (
    SELECT CASE
        WHEN paused THEN 0
        WHEN concurrency IS NULL THEN :limit
        ELSE greatest(0, least(:limit, concurrency - (
            SELECT count(*) FROM jobs
            WHERE queue = :queue AND priority IN (0, 1, 2, 3) AND worker IS NOT NULL
                AND due_at > promptpipe_now() AND due_at <= promptpipe_now() + :lease
        )))
    END AS jobs
    FROM (VALUES (:queue)) AS wanted (queue) LEFT JOIN queues ON name = queue
), due AS MATERIALIZED (
    SELECT id, due_at FROM unnest(ARRAY[0, 1, 2, 3], :floors::timestamptz[]) AS level (priority, floor), LATERAL (
        SELECT id, due_at FROM jobs
        WHERE queue = :queue AND priority = level.priority AND due_at >= level.floor AND due_at <= promptpipe_now()
            AND (crashes + (worker IS NOT NULL)::int >= :suspect_from) = :crashed AND id <> ALL (:held)
        ORDER BY due_at, id LIMIT (SELECT jobs FROM room) FOR UPDATE SKIP LOCKED
    ) AS found
    LIMIT (SELECT jobs FROM room)
)
UPDATE jobs SET
    crashes = crashes + (worker IS NOT NULL)::int, status = 'running', worker = :worker,
    fence = (SELECT nextval('fences')), due_at = promptpipe_now() + :lease, attempt = attempt + 1, updated_at = promptpipe_now()
FROM due WHERE jobs.id = due.id
RETURNING jobs.id, fence, queue, priority, kind, status, run_at, payload, dedupe_key, participant_id, attempt, max_attempts, worker,
    last_error, created_at, updated_at, cancel_requested

-- name: next_due_job
-- What cannot be claimed then is no reason to wake up. Beyond *sight* are the ends of leases, most of which are gone:
-- while somebody holds a snapshot, each would have to be stepped over.
SELECT min(due_at) - promptpipe_now() AS due_in
FROM unnest(:queues::text[]) AS wanted (queue)
LEFT JOIN queues ON name = wanted.queue
CROSS JOIN unnest(ARRAY[0, 1, 2, 3]) AS level (priority), LATERAL (
    SELECT due_at FROM jobs
    WHERE queue = wanted.queue AND priority = level.priority
        AND due_at > promptpipe_now() AND due_at <= promptpipe_now() + :sight
    ORDER BY due_at LIMIT 1
) AS next
WHERE paused IS NOT TRUE AND (
    concurrency IS NULL OR concurrency > (
        SELECT count(*) FROM jobs r
        WHERE r.queue = wanted.queue AND r.priority IN (0, 1, 2, 3) AND r.worker IS NOT NULL
            AND r.due_at > promptpipe_now() AND r.due_at <= promptpipe_now() + :lease
    )
)

-- name: requeue_job
-- *given_back* is 1 when the attempt does not count.
UPDATE jobs SET
    status = 'queued', worker = NULL, crashes = 0, due_at = promptpipe_now() + :delay, attempt = attempt - :given_back,
    last_error = coalesce(:last_error, last_error), updated_at = promptpipe_now()
WHERE id = :id

-- name: renew_job
-- New time and payload, attempts counted anew; the new fence takes it from a worker that runs it.
UPDATE jobs SET
    status = 'queued', worker = NULL, crashes = 0, due_at = :run_at, run_at = :run_at, payload = :payload,
    kind = :kind, queue = :queue, priority = :priority, participant_id = :participant_id,
    attempt = 0, max_attempts = :max_attempts, fence = :fence, cancel_requested = false,
    rerun_at = NULL, rerun_payload = NULL, last_error = NULL, updated_at = promptpipe_now()
WHERE id = :id

-- name: set_rerun
UPDATE jobs SET rerun_at = :rerun_at, rerun_payload = :rerun_payload, updated_at = promptpipe_now() WHERE id = :id

-- name: request_cancel
UPDATE jobs SET cancel_requested = true, updated_at = promptpipe_now() WHERE id = :id

-- name: finish_jobs
-- Those that were enqueued again while they ran stay: they are not at their end. Locked in the order in which everybody
-- does.
WITH held AS MATERIALIZED (
    SELECT j.id FROM jsonb_each_text(:leases::jsonb) AS wanted (id, fence) JOIN jobs j ON j.id = wanted.id
    WHERE j.fence = wanted.fence::bigint AND j.status = 'running' AND j.rerun_at IS NULL ORDER BY j.id FOR UPDATE OF j
), gone AS (
    DELETE FROM jobs USING held WHERE jobs.id = held.id RETURNING jobs.*
)
INSERT INTO job_history (id, queue, priority, kind, status, run_at, payload, dedupe_key, participant_id, attempt,
    max_attempts, worker, last_error, created_at, finished_at)
SELECT id, queue, priority, kind, 'done', run_at, payload, dedupe_key, participant_id, attempt, max_attempts, worker,
    last_error, created_at, promptpipe_now()
FROM gone
RETURNING id

-- name: delete_job
DELETE FROM jobs WHERE id = :id

-- name: insert_job_history
INSERT INTO job_history (id, queue, priority, kind, status, run_at, payload, dedupe_key, participant_id, attempt,
    max_attempts, worker, last_error, created_at, finished_at)
VALUES (:id, :queue, :priority, :kind, :status, :run_at, :payload, :dedupe_key, :participant_id, :attempt,
    :max_attempts, :worker, :last_error, :created_at, promptpipe_now())

-- name: insert_job_error
-- Of a job the newest 20 are kept.
WITH oldest AS (
    SELECT at, attempt FROM job_errors WHERE job_id = :job_id ORDER BY at DESC, attempt DESC LIMIT 1 OFFSET 18
), gone AS (
    DELETE FROM job_errors e USING oldest WHERE job_id = :job_id AND (e.at, e.attempt) < (oldest.at, oldest.attempt)
)
INSERT INTO job_errors (job_id, attempt, at, type, message, worker)
VALUES (:job_id, :attempt, promptpipe_now(), :type, :message, :worker)

-- name: extend_jobs
-- Locked in the order in which everybody does.
WITH held AS MATERIALIZED (
    SELECT j.id FROM jsonb_each_text(:leases::jsonb) AS wanted (id, fence) JOIN jobs j ON j.id = wanted.id
    WHERE j.fence = wanted.fence::bigint AND j.status = 'running' ORDER BY j.id FOR UPDATE OF j
)
UPDATE jobs SET due_at = promptpipe_now() + :lease FROM held WHERE jobs.id = held.id
RETURNING jobs.id AS key, fence, cancel_requested

-- name: jobs_of_worker
SELECT id FROM jobs WHERE worker = :worker ORDER BY id FOR UPDATE

-- name: abandon_running_jobs
-- Their worker is gone without a word.
WITH stale AS MATERIALIZED (
    SELECT id FROM jobs
    WHERE worker IS NOT NULL AND worker <> :me AND NOT EXISTS (SELECT 1 FROM instances i WHERE i.worker = jobs.worker)
    ORDER BY id FOR UPDATE
)
UPDATE jobs SET status = 'queued', worker = NULL, crashes = crashes + 1, due_at = promptpipe_now(),
    updated_at = promptpipe_now()
FROM stale WHERE jobs.id = stale.id
RETURNING 1 AS one

-- name: list_jobs
-- A page of each: PostgreSQL would read and sort everything otherwise.
SELECT * FROM (
    (SELECT id, queue, priority, kind, status, run_at, payload, dedupe_key, participant_id, attempt, max_attempts,
        worker, last_error, created_at, updated_at, NULL::timestamptz AS finished_at
    FROM jobs WHERE id < :after
        AND (:status::text IS NULL OR status = :status) AND (:kind::text IS NULL OR kind = :kind)
        AND (:queue::text IS NULL OR queue = :queue)
    ORDER BY id DESC LIMIT :limit)
    UNION ALL
    (SELECT id, queue, priority, kind, status, run_at, payload, dedupe_key, participant_id, attempt, max_attempts,
        worker, last_error, created_at, finished_at, finished_at
    FROM job_history WHERE id < :after
        AND (:status::text IS NULL OR status = :status) AND (:kind::text IS NULL OR kind = :kind)
        AND (:queue::text IS NULL OR queue = :queue)
    ORDER BY id DESC LIMIT :limit)
) AS pages
ORDER BY id DESC LIMIT :limit

-- name: list_jobs_of
-- A page of each: PostgreSQL would read and sort everything otherwise.
SELECT * FROM (
    (SELECT id, queue, priority, kind, status, run_at, payload, dedupe_key, participant_id, attempt, max_attempts,
        worker, last_error, created_at, updated_at, NULL::timestamptz AS finished_at
    FROM jobs WHERE participant_id = :participant_id AND id < :after
        AND (:status::text IS NULL OR status = :status) AND (:kind::text IS NULL OR kind = :kind)
        AND (:queue::text IS NULL OR queue = :queue)
    ORDER BY id DESC LIMIT :limit)
    UNION ALL
    (SELECT id, queue, priority, kind, status, run_at, payload, dedupe_key, participant_id, attempt, max_attempts,
        worker, last_error, created_at, finished_at, finished_at
    FROM job_history WHERE participant_id = :participant_id AND id < :after
        AND (:status::text IS NULL OR status = :status) AND (:kind::text IS NULL OR kind = :kind)
        AND (:queue::text IS NULL OR queue = :queue)
    ORDER BY id DESC LIMIT :limit)
) AS pages
ORDER BY id DESC LIMIT :limit

-- name: reschedule_job
-- Now, without *run_at*.
UPDATE jobs SET due_at = coalesce(:run_at, promptpipe_now()), run_at = coalesce(:run_at, promptpipe_now()),
    updated_at = promptpipe_now()
WHERE id = :id

-- name: delete_job_history
DELETE FROM job_history WHERE id = :id

-- name: cancel_jobs
WITH gone AS (
    DELETE FROM jobs WHERE id = ANY (:ids) RETURNING jobs.*
)
INSERT INTO job_history (id, queue, priority, kind, status, run_at, payload, dedupe_key, participant_id, attempt,
    max_attempts, worker, last_error, created_at, finished_at)
SELECT id, queue, priority, kind, 'canceled', run_at, payload, dedupe_key, participant_id, attempt, max_attempts,
    worker, last_error, created_at, promptpipe_now()
FROM gone
