-- name: erase_addresses
DELETE FROM participant_addresses WHERE participant_id = :participant_id RETURNING address

-- name: tombstone
SELECT erased_at FROM tombstones WHERE id = :id

-- name: insert_tombstones
-- For a participant, and for each message that a status may still be about.
INSERT INTO tombstones (id, erased_at)
SELECT id, :now FROM outbox_messages WHERE participant_id = :participant_id
UNION ALL SELECT :participant_id, :now

-- name: outbox_lanes_of
-- Their keys begin with the participant's id and a slash, which 0 comes after.
SELECT key FROM lanes WHERE kind = 'outbox' AND key >= :participant_id || '/' AND key < :participant_id || '0'

-- name: erase_mailbox_lane
DELETE FROM lanes WHERE kind = 'mailbox' AND key = :participant_id

-- name: erase_outbox_lanes
DELETE FROM lanes WHERE kind = 'outbox' AND key >= :participant_id || '/' AND key < :participant_id || '0'

-- name: erase_flow_states
DELETE FROM flow_states WHERE participant_id = :participant_id

-- name: erase_hooks
DELETE FROM registered_hooks WHERE participant_id = :participant_id

-- name: erase_schedules
-- A job of theirs that was made already finds its schedule gone, and does nothing.
DELETE FROM schedules WHERE participant_id = :participant_id

-- name: erase_jobs
DELETE FROM jobs WHERE participant_id = :participant_id

-- name: erase_job_errors
DELETE FROM job_errors WHERE job_id IN (SELECT id FROM job_history WHERE participant_id = :participant_id)

-- name: erase_job_history
DELETE FROM job_history WHERE participant_id = :participant_id

-- name: erase_mailbox
DELETE FROM mailbox_events WHERE participant_id = :participant_id AND seq IS NOT NULL

-- name: erase_events_aside
DELETE FROM mailbox_events WHERE participant_id = :participant_id AND seq IS NULL

-- name: erase_receipts
DELETE FROM receipts WHERE message_id IN (SELECT id FROM outbox_messages WHERE participant_id = :participant_id)

-- name: erase_attempts
DELETE FROM outbox_attempts WHERE message_id IN (SELECT id FROM outbox_messages WHERE participant_id = :participant_id)

-- name: erase_messages
DELETE FROM outbox_messages WHERE participant_id = :participant_id

-- name: erase_responses
DELETE FROM responses WHERE participant_id = :participant_id

-- name: erase_strangers_responses
-- What they wrote before anybody knew them.
DELETE FROM responses WHERE participant_id IS NULL AND sender IN (SELECT value FROM json_each(:senders))

-- name: erase_participant
DELETE FROM conversation_participants WHERE id = :participant_id
