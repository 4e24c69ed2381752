-- name: insert_schedule
INSERT INTO schedules (id, version, kind, queue, priority, payload, participant_id, minute, hour, day, month, weekday,
    cron, zone, misfire, spread, next_at, created_at, updated_at)
VALUES (:id, 1, :kind, :queue, :priority, :payload, :participant_id, :minute, :hour, :day, :month, :weekday,
    :cron, :zone, :misfire, :spread, :next_at, :now, :now)
ON CONFLICT DO NOTHING

-- name: schedule
SELECT * FROM schedules WHERE id = :id

-- name: schedule_to_change
SELECT * FROM schedules WHERE id = :id

-- name: list_schedules
SELECT * FROM schedules WHERE id < :after ORDER BY id DESC LIMIT :limit

-- name: list_schedules_of
SELECT * FROM schedules WHERE participant_id = :participant_id AND id < :after ORDER BY id DESC LIMIT :limit

-- name: edit_schedule
UPDATE schedules SET version = version + 1, payload = :payload, minute = :minute, hour = :hour, day = :day,
    month = :month, weekday = :weekday, cron = :cron, zone = :zone, misfire = :misfire, spread = :spread,
    next_at = :next_at, updated_at = :now
WHERE id = :id

-- name: pause_schedules
UPDATE schedules SET paused = 1, next_at = NULL, updated_at = :now
WHERE id IN (SELECT value FROM json_each(:ids)) AND (NOT paused OR next_at IS NOT NULL)

-- name: resume_schedule
UPDATE schedules SET paused = 0, next_at = :next_at, updated_at = :now WHERE id = :id

-- name: delete_schedule
DELETE FROM schedules WHERE id = :id

-- name: due_schedules
SELECT * FROM schedules WHERE next_at <= :now AND NOT paused ORDER BY next_at, id LIMIT :limit

-- name: active_among
SELECT id FROM conversation_participants
WHERE id IN (SELECT value FROM json_each(:participant_ids)) AND status = 'active'

-- name: move_schedules
-- Compare and set: only those that still are in the version, and at the time, that was looked at. The lists belong
-- together by their places; a *last* that is null leaves the column as it is.
UPDATE schedules SET
    next_at = json_extract(:next, '$[' || wanted.key || ']'),
    last_at = coalesce(json_extract(:last, '$[' || wanted.key || ']'), last_at),
    updated_at = :now
FROM json_each(:ids) AS wanted
WHERE schedules.id = wanted.value AND version = json_extract(:versions, '$[' || wanted.key || ']')
    AND next_at IS json_extract(:occurrences, '$[' || wanted.key || ']')
RETURNING schedules.id

-- name: insert_scheduled_jobs
-- For the last time of each; the lists belong together by their places.
INSERT INTO jobs (id, queue, priority, due_at, kind, status, run_at, payload, dedupe_key, participant_id, max_attempts,
    created_at, updated_at)
SELECT json_extract(:job_ids, '$[' || wanted.key || ']'), s.queue, s.priority, t.run_at, s.kind, 'queued', t.run_at,
    json_set(s.payload, '$.schedule_id', s.id, '$.version', s.version, '$.occurrence', t.occurrence,
        '$.expires_at', t.expires),
    'schedule:' || s.id || ':' || t.occurrence, s.participant_id, :max_attempts, :now, :now
FROM json_each(:ids) AS wanted JOIN schedules AS s ON s.id = wanted.value
    JOIN (SELECT key, value AS occurrence, json_extract(:run_at, '$[' || key || ']') AS run_at,
            json_extract(:expires, '$[' || key || ']') AS expires
        FROM json_each(:occurrences)) AS t ON t.key = wanted.key
WHERE true
ON CONFLICT DO NOTHING

-- name: live_jobs_of_schedule
-- Of a participant's. The keys begin with *prefix*.
SELECT id FROM jobs WHERE participant_id = :participant_id AND substr(dedupe_key, 1, length(:prefix)) = :prefix

-- name: waiting_events_of_schedule
SELECT id FROM mailbox_events
WHERE participant_id = :participant_id AND seq IS NOT NULL AND substr(dedupe_key, 1, length(:prefix)) = :prefix

-- name: next_schedule
SELECT min(next_at) - :now AS due_in FROM schedules WHERE next_at > :now

-- name: stray_schedules
SELECT * FROM schedules WHERE next_at IS NULL AND NOT paused ORDER BY id LIMIT :limit
