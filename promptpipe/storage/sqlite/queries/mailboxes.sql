-- name: insert_events
-- *events* is a JSON array.
INSERT INTO mailbox_events (id, participant_id, seq, kind, payload, job_id, dedupe_key, max_attempts, created_at)
SELECT value ->> 'id', value ->> 'participant_id', value ->> 'seq', value ->> 'kind', value -> 'payload',
    value ->> 'job_id', value ->> 'dedupe_key', :max_attempts, :now
FROM json_each(:events)

-- name: head_events
-- The first *depth* of each mailbox.
SELECT head.id, participant_id, seq, kind, payload, attempt, max_attempts, blocked, created_at
FROM json_each(:participant_ids) AS wanted CROSS JOIN mailbox_events AS head ON head.rowid IN (
    SELECT rowid FROM mailbox_events WHERE participant_id = wanted.value AND seq IS NOT NULL ORDER BY seq LIMIT :depth
)

-- name: hand_out_events
UPDATE mailbox_events SET attempt = attempt + 1 WHERE id IN (SELECT value FROM json_each(:ids))

-- name: delete_events
DELETE FROM mailbox_events WHERE id IN (SELECT value FROM json_each(:ids)) RETURNING id

-- name: set_event_aside
UPDATE mailbox_events SET seq = NULL, last_error = :last_error WHERE id = :id

-- name: event
SELECT * FROM mailbox_events WHERE id = :id

-- name: list_events_aside
SELECT * FROM mailbox_events WHERE seq IS NULL AND id < :after ORDER BY id DESC LIMIT :limit

-- name: list_events_aside_of
SELECT * FROM mailbox_events
WHERE seq IS NULL AND participant_id = :participant_id AND id < :after ORDER BY id DESC LIMIT :limit

-- name: count_events_aside
SELECT count(*) AS count FROM mailbox_events WHERE seq IS NULL

-- name: return_event
UPDATE mailbox_events SET seq = :seq, attempt = 0, blocked = 0 WHERE id = :id AND seq IS NULL RETURNING id

-- name: drop_event_aside
DELETE FROM mailbox_events WHERE id = :id AND seq IS NULL RETURNING id

-- name: note_event_error
UPDATE mailbox_events SET blocked = blocked + :blocked, last_error = :last_error WHERE id = :id

-- name: give_event_back
UPDATE mailbox_events SET attempt = attempt - 1
WHERE participant_id = :participant_id AND attempt > 0
    AND seq = (SELECT min(seq) FROM mailbox_events WHERE participant_id = :participant_id AND seq IS NOT NULL)

-- name: waiting_timers
-- One that was set aside keeps no key taken.
SELECT * FROM mailbox_events WHERE dedupe_key IN (SELECT value FROM json_each(:dedupe_keys)) AND seq IS NOT NULL

-- name: waiting_loss
SELECT id FROM mailbox_events WHERE job_id = :job_id AND kind = :kind

-- name: mark_responses_processed
UPDATE responses SET processed_at = :now WHERE id IN (SELECT value FROM json_each(:ids))

-- name: insert_refusal
INSERT INTO refusals (event_id, reason, created_at) VALUES (:event_id, :reason, :now)
ON CONFLICT DO NOTHING

-- name: order_standing
-- Where an order stands: *waits* in its mailbox, or set aside with the *error*, or gone with the *reason* of a refusal.
SELECT e.seq IS NOT NULL AS waits, e.id IS NOT NULL AS there, e.last_error, r.reason
FROM (SELECT :id AS id) AS wanted LEFT JOIN mailbox_events e ON e.id = wanted.id
    LEFT JOIN refusals r ON r.event_id = wanted.id
