-- name: insert_events
-- *events* is a JSON array.
INSERT INTO mailbox_events (id, participant_id, seq, kind, payload, job_id, dedupe_key, max_attempts, created_at)
SELECT id, participant_id, seq, kind, payload, job_id, dedupe_key, :max_attempts, promptpipe_now()
FROM jsonb_to_recordset(:events::jsonb) AS event (id text, participant_id text, seq bigint, kind text, payload jsonb,
    job_id text, dedupe_key text)

-- name: head_events
-- The first *depth* of each mailbox.
SELECT head.* FROM unnest(:participant_ids::text[]) AS wanted (participant_id), LATERAL (
    SELECT id, participant_id, seq, kind, payload, attempt, max_attempts, blocked, created_at
    FROM mailbox_events WHERE participant_id = wanted.participant_id AND seq IS NOT NULL ORDER BY seq LIMIT :depth
) AS head

-- name: hand_out_events
UPDATE mailbox_events SET attempt = attempt + 1 WHERE id = ANY (:ids)

-- name: delete_events
DELETE FROM mailbox_events WHERE id = ANY (:ids) RETURNING id

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
UPDATE mailbox_events SET seq = :seq, attempt = 0, blocked = '0' WHERE id = :id AND seq IS NULL RETURNING id

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
SELECT * FROM mailbox_events WHERE dedupe_key = ANY (:dedupe_keys) AND seq IS NOT NULL

-- name: waiting_loss
SELECT id FROM mailbox_events WHERE job_id = :job_id AND kind = :kind

-- name: mark_responses_processed
UPDATE responses SET processed_at = promptpipe_now() WHERE id = ANY (:ids)

-- name: insert_refusal
INSERT INTO refusals (event_id, reason, created_at) VALUES (:event_id, :reason, promptpipe_now())
ON CONFLICT DO NOTHING

-- name: order_standing
-- Where an order stands: *waits* in its mailbox, or set aside with the *error*, or gone with the *reason* of a refusal.
SELECT e.seq IS NOT NULL AS waits, e.id IS NOT NULL AS there, e.last_error, r.reason
FROM (SELECT :id::text AS id) AS wanted LEFT JOIN mailbox_events e ON e.id = wanted.id
    LEFT JOIN refusals r ON r.event_id = wanted.id
