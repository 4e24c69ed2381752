-- name: insert_schedule
INSERT INTO schedules (id, version, kind, queue, priority, payload, participant_id, minute, hour, day, month, weekday,
    cron, zone, misfire, spread, next_at, created_at, updated_at)
VALUES (:id, 1, :kind, :queue, :priority, :payload, :participant_id, :minute, :hour, :day, :month, :weekday,
    :cron, :zone, :misfire, :spread, :next_at, promptpipe_now(), promptpipe_now())
ON CONFLICT DO NOTHING

-- name: schedule
SELECT * FROM schedules WHERE id = :id

-- name: schedule_to_change
SELECT * FROM schedules WHERE id = :id FOR UPDATE

-- name: list_schedules
SELECT * FROM schedules WHERE id < :after ORDER BY id DESC LIMIT :limit

-- name: list_schedules_of
SELECT * FROM schedules WHERE participant_id = :participant_id AND id < :after ORDER BY id DESC LIMIT :limit

-- name: edit_schedule
UPDATE schedules SET version = version + 1, payload = :payload, minute = :minute, hour = :hour, day = :day,
    month = :month, weekday = :weekday, cron = :cron, zone = :zone, misfire = :misfire, spread = :spread,
    next_at = :next_at, updated_at = promptpipe_now()
WHERE id = :id

-- name: pause_schedules
UPDATE schedules SET paused = true, next_at = NULL, updated_at = promptpipe_now()
WHERE id = ANY (:ids) AND (NOT paused OR next_at IS NOT NULL)

-- name: resume_schedule
UPDATE schedules SET paused = false, next_at = :next_at, updated_at = promptpipe_now() WHERE id = :id

-- name: delete_schedule
DELETE FROM schedules WHERE id = :id RETURNING 1 AS one

-- name: due_schedules
SELECT * FROM schedules WHERE next_at <= promptpipe_now() AND NOT paused ORDER BY next_at, id LIMIT :limit
FOR UPDATE SKIP LOCKED

-- name: active_among
SELECT id FROM conversation_participants WHERE id = ANY (:participant_ids) AND status = 'active'

-- name: move_schedules
-- Compare and set: only those that still are in the version, and at the time, that was looked at. The lists belong
-- together by their places; a *last* that is null leaves the column as it is.
UPDATE schedules SET
    next_at = wanted.next, last_at = coalesce(wanted.last, schedules.last_at), updated_at = promptpipe_now()
FROM unnest(:ids::text[], :versions::bigint[], :occurrences::timestamptz[], :next::timestamptz[], :last::timestamptz[])
    AS wanted (id, version, occurrence, next, last)
WHERE schedules.id = wanted.id AND schedules.version = wanted.version
    AND schedules.next_at IS NOT DISTINCT FROM wanted.occurrence
RETURNING schedules.id

-- name: insert_scheduled_jobs
-- For the last time of each; the lists belong together by their places.
INSERT INTO jobs (id, queue, priority, due_at, kind, status, run_at, payload, dedupe_key, participant_id, max_attempts,
    created_at, updated_at)
SELECT wanted.job_id, s.queue, s.priority, wanted.run_at, s.kind, 'queued', wanted.run_at,
    s.payload || jsonb_build_object('schedule_id', s.id, 'version', s.version, 'occurrence', wanted.occurrence,
        'expires_at', wanted.expires),
    'schedule:' || s.id || ':' || wanted.occurrence, s.participant_id, :max_attempts, promptpipe_now(), promptpipe_now()
FROM unnest(:ids::text[], :job_ids::text[], :occurrences::text[], :run_at::timestamptz[], :expires::text[])
    AS wanted (id, job_id, occurrence, run_at, expires)
    JOIN schedules s ON s.id = wanted.id
ON CONFLICT DO NOTHING
RETURNING 1 AS one

-- name: live_jobs_of_schedule
-- Of a participant's. The keys begin with *prefix*.
SELECT id FROM jobs WHERE participant_id = :participant_id AND starts_with(dedupe_key, :prefix)

-- name: waiting_events_of_schedule
SELECT id FROM mailbox_events
WHERE participant_id = :participant_id AND seq IS NOT NULL AND starts_with(dedupe_key, :prefix)

-- name: next_schedule
SELECT min(next_at) - promptpipe_now() AS due_in FROM schedules WHERE next_at > promptpipe_now()

-- name: stray_schedules
SELECT * FROM schedules WHERE next_at IS NULL AND NOT paused ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
