-- name: insert_job
INSERT INTO jobs (id, queue, priority, due_at, kind, status, run_at, payload, dedupe_key, participant_id,
    max_attempts, created_at, updated_at)
VALUES (:id, :queue, :priority, coalesce(:run_at, :now), :kind, 'queued', coalesce(:run_at, :now), :payload,
    :dedupe_key, :participant_id, :max_attempts, coalesce(:created_at, :now), :now)

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

-- name: job_by_key
SELECT *, NULL AS finished_at FROM jobs WHERE dedupe_key = :dedupe_key

-- name: participants_of_jobs
SELECT DISTINCT participant_id FROM jobs
WHERE id IN (SELECT value FROM json_each(:ids)) AND participant_id IS NOT NULL

-- name: held_jobs
-- *ids* and *fences* belong together by their places.
SELECT jobs.*, NULL AS finished_at FROM json_each(:ids) AS wanted JOIN jobs ON jobs.id = wanted.value
WHERE fence = json_extract(:fences, '$[' || wanted.key || ']') AND status = 'running'

-- name: due_jobs
SELECT * FROM jobs
WHERE queue = :queue AND priority = :priority AND due_at <= :now AND crashes + (worker IS NOT NULL) < :suspect_from
    AND id NOT IN (SELECT value FROM json_each(:held))
ORDER BY due_at, id LIMIT :limit

-- name: due_suspect_job
SELECT * FROM jobs
WHERE queue = :queue AND priority = :priority AND due_at <= :now AND crashes + (worker IS NOT NULL) >= :suspect_from
    AND id NOT IN (SELECT value FROM json_each(:held))
ORDER BY due_at, id LIMIT 1

-- name: lease_jobs
-- A row that still has a worker was leased to one that vanished: that counts as a crash.
UPDATE jobs SET
    crashes = crashes + (worker IS NOT NULL), status = 'running', worker = :worker, fence = :fence,
    due_at = :now + :lease, attempt = attempt + 1, updated_at = :now
WHERE id IN (SELECT value FROM json_each(:ids))
RETURNING *, NULL AS finished_at

-- name: next_due_job
SELECT min((SELECT min(due_at) FROM jobs WHERE queue = q.value AND priority = p.value AND due_at > :now)) - :now
    AS due_in
FROM json_each(:queues) AS q, json_each('[0, 1, 2, 3]') AS p

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

-- name: delete_job
DELETE FROM jobs WHERE id = :id

-- name: insert_job_history
INSERT INTO job_history (id, queue, priority, kind, status, run_at, payload, dedupe_key, participant_id, attempt,
    max_attempts, worker, last_error, created_at, finished_at)
VALUES (:id, :queue, :priority, :kind, :status, :run_at, :payload, :dedupe_key, :participant_id, :attempt,
    :max_attempts, :worker, :last_error, :created_at, :now)

-- name: insert_job_error
INSERT INTO job_errors (job_id, attempt, at, type, message, worker)
VALUES (:job_id, :attempt, :now, :type, :message, :worker)

-- name: extend_jobs
-- *keys* and *fences* belong together by their places.
UPDATE jobs SET due_at = :now + :lease FROM json_each(:keys) AS wanted
WHERE jobs.id = wanted.value AND fence = json_extract(:fences, '$[' || wanted.key || ']') AND status = 'running'
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

-- name: hasten_job
UPDATE jobs SET due_at = :now, run_at = :now, updated_at = :now WHERE id = :id

-- name: delete_job_history
DELETE FROM job_history WHERE id = :id
