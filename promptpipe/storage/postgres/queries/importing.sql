-- name: living_instance
SELECT worker FROM instances WHERE beat_at > promptpipe_now() - :since LIMIT 1

-- name: import_progress
SELECT * FROM imports WHERE source = :source

-- name: forget_import
DELETE FROM imports WHERE place = :place

-- name: begin_import
INSERT INTO imports (source, place, name, finished, rows_read, imported, skipped, problems, listed, updated_at)
VALUES (:source, :place, :name, false, 0, 0, 0, 0, '[]', promptpipe_now())

-- name: note_import
UPDATE imports SET position = :position, finished = :finished, rows_read = :rows_read, imported = :imported,
    skipped = :skipped, problems = :problems, listed = :listed, updated_at = promptpipe_now()
WHERE source = :source AND name = :name

-- name: unfinished_imports
SELECT DISTINCT place FROM imports WHERE NOT finished ORDER BY place

-- name: give_up_imports
DELETE FROM imports WHERE source IN (SELECT source FROM imports WHERE NOT finished)

-- name: known_participants
SELECT id FROM conversation_participants WHERE id = ANY (:ids)

-- name: known_conversations
SELECT DISTINCT participant_id AS id FROM flow_states WHERE participant_id = ANY (:ids)

-- name: known_jobs
SELECT id FROM jobs WHERE id = ANY (:ids)
UNION ALL
SELECT id FROM job_history WHERE id = ANY (:ids)

-- name: known_messages
SELECT id FROM outbox_messages WHERE id = ANY (:ids)

-- name: known_marks
SELECT provider_id AS id FROM inbound_dedup
WHERE kind = 'message' AND status = '' AND provider_id = ANY (:ids)

-- name: known_receipts
SELECT id FROM receipts WHERE id = ANY (:ids)

-- name: known_responses
SELECT id FROM responses WHERE id = ANY (:ids)

-- name: known_tombstones
SELECT id FROM tombstones WHERE id = ANY (:ids)

-- name: import_participant
INSERT INTO conversation_participants (id, status, channel, name, gender, ethnicity, background, timezone,
    created_at, updated_at)
VALUES (:id, :status, :channel, :name, :gender, :ethnicity, :background, :timezone, :created_at, :updated_at)

-- name: import_flow_state
INSERT INTO flow_states (participant_id, flow_type, current_state, state_data, version, created_at, updated_at)
VALUES (:participant_id, :flow_type, :current_state, :state_data, 1, :created_at, :updated_at)
ON CONFLICT DO NOTHING

-- name: import_job
INSERT INTO jobs (id, queue, priority, due_at, kind, status, run_at, payload, dedupe_key, participant_id, max_attempts,
    created_at, updated_at)
VALUES (:id, :queue, :priority, :run_at, :kind, 'queued', :run_at, :payload, :dedupe_key, :participant_id, :max_attempts,
    :created_at, promptpipe_now())
ON CONFLICT DO NOTHING

-- name: import_ended_job
INSERT INTO job_history (id, queue, priority, kind, status, run_at, payload, dedupe_key, participant_id, attempt,
    max_attempts, last_error, created_at, finished_at)
VALUES (:id, :queue, :priority, :kind, :status, :run_at, :payload, :dedupe_key, :participant_id, :attempt,
    :max_attempts, :last_error, :created_at, :finished_at)
ON CONFLICT DO NOTHING

-- name: import_message
-- A key that another message has is left to that. Nothing counts against the attempts that are to come.
INSERT INTO outbox_messages (id, participant_id, channel, recipient, recipient_kind, class, lane_key, seq, not_before,
    kind, body, status, attempts, uncounted, max_attempts, dedupe_key, in_doubt_policy, doubt_from, last_error,
    created_at, updated_at, sent_at, failed_at)
VALUES (:id, :participant_id, :channel, :recipient, :recipient_kind, :class_, :lane_key, :seq, :not_before,
    :kind, :body, :status, :attempts, :attempts, :max_attempts,
    CASE WHEN NOT EXISTS (SELECT 1 FROM outbox_messages WHERE dedupe_key = :dedupe_key) THEN :dedupe_key END,
    :in_doubt_policy, CASE WHEN :status = 'in_doubt' THEN :updated_at END, :last_error, :created_at, :updated_at,
    CASE WHEN :status = 'sent' THEN :updated_at END, CASE WHEN :status IN ('failed', 'canceled') THEN :updated_at END)

-- name: import_attempt
INSERT INTO outbox_attempts (message_id, n, fence, channel, state, error, started_at, ended_at)
VALUES (:message_id, :n, 0, :channel, :state, :error, :started_at, :started_at)

-- name: import_mark
INSERT INTO inbound_dedup (channel, number_id, kind, provider_id, status, seen_at)
VALUES (:channel, :number_id, 'message', :provider_id, '', :seen_at)
ON CONFLICT DO NOTHING

-- name: import_receipt
INSERT INTO receipts (id, channel, provider_message_id, status, error, provider_time, received_at, raw)
VALUES (:id, :channel, :provider_message_id, :status, :error, :provider_time, :received_at, :raw)
ON CONFLICT DO NOTHING

-- name: import_response
INSERT INTO responses (id, participant_id, channel, number_id, message_id, sender, type, text, raw, provider_time,
    received_at, processed_at)
VALUES (:id, :participant_id, :channel, :number_id, :message_id, :sender, :type, :text, :raw, :provider_time,
    :received_at, :processed_at)
ON CONFLICT DO NOTHING
