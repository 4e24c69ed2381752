-- name: insert_event
INSERT INTO mailbox_events (id, participant_id, seq, kind, payload, job_id, dedupe_key, max_attempts, created_at)
VALUES (:id, :participant_id, :seq, :kind, :payload, :job_id, :dedupe_key, :max_attempts, promptpipe_now())

-- name: head_event
SELECT * FROM mailbox_events WHERE participant_id = :participant_id AND seq IS NOT NULL ORDER BY seq LIMIT 1

-- name: hand_out_event
UPDATE mailbox_events SET attempt = attempt + 1 WHERE id = :id

-- name: delete_event
DELETE FROM mailbox_events WHERE id = :id RETURNING 1 AS one

-- name: set_event_aside
UPDATE mailbox_events SET seq = NULL, last_error = :last_error WHERE id = :id

-- name: note_event_error
UPDATE mailbox_events SET blocked = blocked + :blocked, last_error = :last_error WHERE id = :id

-- name: give_event_back
UPDATE mailbox_events SET attempt = attempt - 1
WHERE participant_id = :participant_id AND attempt > 0
    AND seq = (SELECT min(seq) FROM mailbox_events WHERE participant_id = :participant_id AND seq IS NOT NULL)

-- name: waiting_timer_by_key
-- One that was set aside keeps no key taken.
SELECT * FROM mailbox_events WHERE dedupe_key = :dedupe_key AND seq IS NOT NULL

-- name: waiting_loss
SELECT id FROM mailbox_events WHERE job_id = :job_id AND kind = :kind

-- name: mark_response_processed
UPDATE responses SET processed_at = promptpipe_now() WHERE id = :id
