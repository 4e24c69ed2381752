-- name: insert_messages
-- *messages* is a JSON array, times in it microseconds since 1970.
INSERT INTO outbox_messages (id, participant_id, channel, recipient, recipient_kind, class, lane_key, seq, kind, body,
    status, max_attempts, dedupe_key, flow_type, expires_at, in_doubt_policy, created_at, updated_at)
SELECT id, participant_id, channel, recipient, recipient_kind, class, lane_key, seq, kind, body, status, :max_attempts,
    dedupe_key, flow_type, 'epoch'::timestamptz + expires_at * interval '1 microsecond', in_doubt_policy,
    promptpipe_now(), promptpipe_now()
FROM jsonb_to_recordset(:messages::jsonb) AS message (id text, participant_id text, channel text, recipient text,
    recipient_kind text, class text, lane_key text, seq bigint, kind text, body jsonb, status text, dedupe_key text,
    flow_type text, expires_at bigint, in_doubt_policy text)

-- name: message
SELECT * FROM outbox_messages WHERE id = :id

-- name: message_by_key
SELECT *, created_at > promptpipe_now() - :hold::interval AS held FROM outbox_messages WHERE dedupe_key = :dedupe_key

-- name: head_message
SELECT * FROM outbox_messages WHERE lane_key = :lane_key AND seq IS NOT NULL ORDER BY seq LIMIT 1

-- name: head_messages
SELECT head.* FROM unnest(:keys::text[]) AS wanted (key), LATERAL (
    SELECT * FROM outbox_messages WHERE lane_key = wanted.key AND seq IS NOT NULL ORDER BY seq LIMIT 1
) AS head

-- name: paused_channels
SELECT name FROM channels WHERE paused_until > promptpipe_now()

-- name: messages_on_their_way
-- Their last attempt is out, nothing is known of it, and no flow waits to be told.
SELECT m.id, m.attempts FROM outbox_messages m JOIN outbox_attempts a ON a.message_id = m.id AND a.n = m.attempts
WHERE m.id = ANY (:ids) AND m.status = 'sending' AND a.state = 'sending' AND m.flow_type IS NULL

-- name: known_among
-- Provider's ids that a status has come for already, or that an attempt has. *wanted* is a JSON array.
SELECT p.channel, p.provider_id FROM jsonb_to_recordset(:wanted::jsonb) AS wanted (channel text, provider_id text)
JOIN parked_updates p ON p.channel = wanted.channel AND p.provider_id = wanted.provider_id
UNION ALL
SELECT a.channel, a.provider_id FROM jsonb_to_recordset(:wanted::jsonb) AS wanted (channel text, provider_id text)
JOIN outbox_attempts a ON a.channel = wanted.channel AND a.provider_id = wanted.provider_id

-- name: accept_attempts
-- *accepted* is a JSON array.
UPDATE outbox_attempts a SET state = 'sent', provider_id = w.provider_id, ended_at = promptpipe_now()
FROM jsonb_to_recordset(:accepted::jsonb) AS w (id text, n integer, provider_id text)
WHERE a.message_id = w.id AND a.n = w.n

-- name: accept_messages
-- They have reached the provider, and leave their lanes.
UPDATE outbox_messages m SET status = 'sent', provider_message_id = coalesce(provider_message_id, w.provider_id),
    sent_at = coalesce(sent_at, promptpipe_now()), seq = NULL, not_before = NULL, doubt_from = NULL, doubt_until = NULL,
    updated_at = promptpipe_now()
FROM jsonb_to_recordset(:accepted::jsonb) AS w (id text, n integer, provider_id text)
WHERE m.id = w.id

-- name: mark_sending
-- The last look before it leaves: still queued or in doubt, not expired, its person there and not withdrawn.
UPDATE outbox_messages SET
    status = 'sending', attempts = attempts + 1, doubt_from = NULL, doubt_until = NULL, updated_at = promptpipe_now()
WHERE id = ANY (:ids) AND status IN ('queued', 'in_doubt') AND (expires_at IS NULL OR expires_at > promptpipe_now())
    AND (SELECT status FROM conversation_participants p WHERE p.id = outbox_messages.participant_id) <> 'withdrawn'
RETURNING *

-- name: insert_attempts
-- *attempts* is a JSON array.
INSERT INTO outbox_attempts (message_id, n, fence, channel, state, started_at)
SELECT message_id, n, fence, channel, 'sending', promptpipe_now()
FROM jsonb_to_recordset(:attempts::jsonb) AS attempt (message_id text, n integer, fence bigint, channel text)

-- name: attempt
SELECT * FROM outbox_attempts WHERE message_id = :message_id AND n = :n

-- name: attempt_by_provider_id
SELECT * FROM outbox_attempts WHERE channel = :channel AND provider_id = :provider_id

-- name: attempt_states
SELECT state FROM outbox_attempts WHERE message_id = :message_id

-- name: set_attempt
-- A provider's id that another attempt has is left to that: nothing is to be stuck because it was given twice.
UPDATE outbox_attempts SET
    state = :state, error = coalesce(:error, error),
    provider_id = coalesce(provider_id, CASE WHEN NOT EXISTS (
        SELECT 1 FROM outbox_attempts other
        WHERE other.channel = outbox_attempts.channel AND other.provider_id = :provider_id::text
    ) THEN :provider_id::text END),
    ended_at = coalesce(ended_at, promptpipe_now())
WHERE message_id = :message_id AND n = :n

-- name: set_message_status
-- Times are those of the first arrival in each state.
UPDATE outbox_messages SET
    status = :status,
    provider_message_id = coalesce(provider_message_id, :provider_id),
    last_error = coalesce(:error, last_error),
    sent_at = CASE WHEN :status IN ('sent', 'delivered', 'read') THEN coalesce(sent_at, promptpipe_now()) ELSE sent_at END,
    delivered_at = CASE WHEN :status IN ('delivered', 'read') THEN coalesce(delivered_at, promptpipe_now()) ELSE delivered_at END,
    read_at = CASE WHEN :status = 'read' THEN coalesce(read_at, promptpipe_now()) ELSE read_at END,
    failed_at = CASE WHEN :status IN ('failed', 'expired', 'canceled') THEN coalesce(failed_at, promptpipe_now()) ELSE failed_at END,
    updated_at = promptpipe_now()
WHERE id = :id

-- name: forget_old_keys
-- A key is free when its time is over.
UPDATE outbox_messages SET dedupe_key = NULL
WHERE dedupe_key = ANY (:dedupe_keys) AND created_at <= promptpipe_now() - :hold::interval

-- name: leave_lane
UPDATE outbox_messages SET seq = NULL, not_before = NULL, doubt_from = NULL, doubt_until = NULL WHERE id = :id

-- name: postpone_message
-- It leaves its lane and enters the tail again at *not_before*.
UPDATE outbox_messages SET seq = NULL, not_before = :not_before, status = 'queued', last_error = :error,
    updated_at = promptpipe_now()
WHERE id = :id

-- name: postponed_messages
SELECT id, lane_key, class FROM outbox_messages WHERE not_before <= promptpipe_now() ORDER BY not_before, id LIMIT :limit

-- name: next_postponed
SELECT min(not_before) - promptpipe_now() AS due_in FROM outbox_messages WHERE not_before > promptpipe_now()

-- name: enter_lane
UPDATE outbox_messages SET seq = :seq, not_before = NULL, updated_at = promptpipe_now()
WHERE id = :id AND seq IS NULL AND status = 'queued'

-- name: queue_again
UPDATE outbox_messages SET status = 'queued', uncounted = uncounted + :uncounted, last_error = :error,
    updated_at = promptpipe_now()
WHERE id = :id

-- name: retry_message
-- As if it had never been tried: but attempts keep their numbers, by which late statuses find them.
UPDATE outbox_messages SET
    status = 'queued', uncounted = attempts, provider_message_id = NULL, sent_at = NULL, failed_at = NULL,
    expires_at = CASE WHEN expires_at > promptpipe_now() THEN expires_at END, updated_at = promptpipe_now()
WHERE id = :id

-- name: doubt
UPDATE outbox_messages SET status = 'in_doubt', doubt_from = greatest(promptpipe_now(), :start),
    doubt_until = greatest(promptpipe_now(), :start) + :wait,
    last_error = coalesce(:error, last_error), updated_at = promptpipe_now()
WHERE id = :id

-- name: count_in_doubt
SELECT count(*) AS messages FROM outbox_messages WHERE status = 'in_doubt'

-- name: lanes_in_doubt
SELECT DISTINCT lane_key FROM outbox_messages WHERE status = 'in_doubt' AND doubt_until IS NOT NULL

-- name: restart_doubts
UPDATE outbox_messages SET doubt_until = greatest(doubt_from, promptpipe_now()) + :wait
WHERE status = 'in_doubt' AND doubt_until IS NOT NULL
RETURNING lane_key, doubt_until

-- name: pause_channel
INSERT INTO channels (name, paused_until, reason) VALUES (:name, :paused_until, :reason)
ON CONFLICT (name) DO UPDATE SET
    paused_until = greatest(channels.paused_until, excluded.paused_until), reason = excluded.reason

-- name: channel_pause
SELECT paused_until, reason FROM channels WHERE name = :name AND paused_until > promptpipe_now()

-- name: insert_receipt
INSERT INTO receipts (id, channel, message_id, attempt, provider_message_id, status, error, provider_time,
    received_at, raw)
VALUES (:id, :channel, :message_id, :attempt, :provider_message_id, :status, :error, :provider_time, promptpipe_now(), :raw)

-- name: receipt
SELECT * FROM receipts WHERE id = :id

-- name: join_receipt
UPDATE receipts SET message_id = :message_id, attempt = :attempt WHERE id = :id

-- name: park_receipt
INSERT INTO parked_updates (channel, provider_id, receipt_id, received_at)
VALUES (:channel, :provider_id, :receipt_id, promptpipe_now())

-- name: take_parked_receipts
DELETE FROM parked_updates WHERE channel = :channel AND provider_id = :provider_id RETURNING receipt_id

-- name: list_messages
SELECT * FROM outbox_messages WHERE id < :after AND (:status::text IS NULL OR status = :status)
ORDER BY id DESC LIMIT :limit

-- name: list_messages_of
SELECT * FROM outbox_messages
WHERE participant_id = :participant_id AND id < :after AND (:status::text IS NULL OR status = :status)
ORDER BY id DESC LIMIT :limit
