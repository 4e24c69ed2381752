-- name: insert_messages
-- *messages* is a JSON array, times in it microseconds since 1970.
INSERT INTO outbox_messages (id, participant_id, channel, recipient, recipient_kind, class, lane_key, seq, kind, body,
    status, max_attempts, dedupe_key, flow_type, expires_at, in_doubt_policy, created_at, updated_at)
SELECT value ->> 'id', value ->> 'participant_id', value ->> 'channel', value ->> 'recipient',
    value ->> 'recipient_kind', value ->> 'class', value ->> 'lane_key', value ->> 'seq', value ->> 'kind',
    value -> 'body', value ->> 'status', :max_attempts, value ->> 'dedupe_key', value ->> 'flow_type',
    value ->> 'expires_at', value ->> 'in_doubt_policy', :now, :now
FROM json_each(:messages)

-- name: message
SELECT * FROM outbox_messages WHERE id = :id

-- name: message_by_key
SELECT *, created_at > :now - :hold AS held FROM outbox_messages WHERE dedupe_key = :dedupe_key

-- name: head_message
SELECT * FROM outbox_messages WHERE lane_key = :lane_key AND seq IS NOT NULL ORDER BY seq LIMIT 1

-- name: head_messages
SELECT * FROM outbox_messages WHERE id IN (
    SELECT (SELECT id FROM outbox_messages WHERE lane_key = wanted.value AND seq IS NOT NULL ORDER BY seq LIMIT 1)
    FROM json_each(:keys) AS wanted
)

-- name: paused_channels
SELECT name FROM channels WHERE paused_until > :now

-- name: messages_on_their_way
-- Their last attempt is out, nothing is known of it, and no flow waits to be told.
SELECT m.id, m.attempts FROM outbox_messages m JOIN outbox_attempts a ON a.message_id = m.id AND a.n = m.attempts
WHERE m.id IN (SELECT value FROM json_each(:ids)) AND m.status = 'sending' AND a.state = 'sending' AND m.flow_type IS NULL

-- name: known_among
-- Provider's ids that a status has come for already, or that an attempt has. *wanted* is a JSON array.
SELECT channel, provider_id FROM json_each(:wanted) AS wanted
CROSS JOIN parked_updates ON channel = wanted.value ->> 'channel' AND provider_id = wanted.value ->> 'provider_id'
UNION ALL
SELECT channel, provider_id FROM json_each(:wanted) AS wanted
CROSS JOIN outbox_attempts ON channel = wanted.value ->> 'channel' AND provider_id = wanted.value ->> 'provider_id'

-- name: accept_attempts
-- *accepted* is a JSON array.
UPDATE outbox_attempts SET state = 'sent', provider_id = value ->> 'provider_id', ended_at = :now
FROM json_each(:accepted) WHERE message_id = value ->> 'id' AND n = value ->> 'n'

-- name: accept_messages
-- They have reached the provider, and leave their lanes.
UPDATE outbox_messages SET status = 'sent',
    provider_message_id = coalesce(provider_message_id, value ->> 'provider_id'), sent_at = coalesce(sent_at, :now),
    seq = NULL, not_before = NULL, doubt_from = NULL, doubt_until = NULL, updated_at = :now
FROM json_each(:accepted) WHERE outbox_messages.id = value ->> 'id'

-- name: mark_sending
-- The last look before it leaves: still queued or in doubt, not expired, its person there and not withdrawn.
UPDATE outbox_messages SET
    status = 'sending', attempts = attempts + 1, doubt_from = NULL, doubt_until = NULL, updated_at = :now
WHERE id IN (SELECT value FROM json_each(:ids)) AND status IN ('queued', 'in_doubt') AND (expires_at IS NULL OR expires_at > :now)
    AND (SELECT status FROM conversation_participants p WHERE p.id = outbox_messages.participant_id) <> 'withdrawn'
RETURNING *

-- name: insert_attempts
-- *attempts* is a JSON array.
INSERT INTO outbox_attempts (message_id, n, fence, channel, state, started_at)
SELECT value ->> 'message_id', value ->> 'n', value ->> 'fence', value ->> 'channel', 'sending', :now
FROM json_each(:attempts)

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
        WHERE other.channel = outbox_attempts.channel AND other.provider_id = :provider_id
    ) THEN :provider_id END),
    ended_at = coalesce(ended_at, :now)
WHERE message_id = :message_id AND n = :n

-- name: set_message_status
-- Times are those of the first arrival in each state.
UPDATE outbox_messages SET
    status = :status,
    provider_message_id = coalesce(provider_message_id, :provider_id),
    last_error = coalesce(:error, last_error),
    sent_at = CASE WHEN :status IN ('sent', 'delivered', 'read') THEN coalesce(sent_at, :now) ELSE sent_at END,
    delivered_at = CASE WHEN :status IN ('delivered', 'read') THEN coalesce(delivered_at, :now) ELSE delivered_at END,
    read_at = CASE WHEN :status = 'read' THEN coalesce(read_at, :now) ELSE read_at END,
    failed_at = CASE WHEN :status IN ('failed', 'expired', 'canceled') THEN coalesce(failed_at, :now) ELSE failed_at END,
    updated_at = :now
WHERE id = :id

-- name: forget_old_keys
-- A key is free when its time is over.
UPDATE outbox_messages SET dedupe_key = NULL
WHERE dedupe_key IN (SELECT value FROM json_each(:dedupe_keys)) AND created_at <= :now - :hold

-- name: leave_lane
UPDATE outbox_messages SET seq = NULL, not_before = NULL, doubt_from = NULL, doubt_until = NULL WHERE id = :id

-- name: postpone_message
-- It leaves its lane and enters the tail again at *not_before*.
UPDATE outbox_messages SET seq = NULL, not_before = :not_before, status = 'queued', last_error = :error,
    updated_at = :now
WHERE id = :id

-- name: postponed_messages
SELECT id, lane_key, class FROM outbox_messages WHERE not_before <= :now ORDER BY not_before, id LIMIT :limit

-- name: next_postponed
SELECT min(not_before) - :now AS due_in FROM outbox_messages WHERE not_before > :now

-- name: enter_lane
UPDATE outbox_messages SET seq = :seq, not_before = NULL, updated_at = :now WHERE id = :id

-- name: queue_again
UPDATE outbox_messages SET status = 'queued', uncounted = uncounted + :uncounted, last_error = :error,
    updated_at = :now
WHERE id = :id

-- name: retry_message
-- As if it had never been tried: but attempts keep their numbers, by which late statuses find them.
UPDATE outbox_messages SET
    status = 'queued', uncounted = attempts, provider_message_id = NULL, sent_at = NULL, failed_at = NULL,
    expires_at = CASE WHEN expires_at > :now THEN expires_at END, updated_at = :now
WHERE id = :id

-- name: doubt
UPDATE outbox_messages SET status = 'in_doubt', doubt_from = max(:now, coalesce(:start, :now)),
    doubt_until = max(:now, coalesce(:start, :now)) + :wait,
    last_error = coalesce(:error, last_error), updated_at = :now
WHERE id = :id

-- name: count_in_doubt
SELECT count(*) AS messages FROM outbox_messages WHERE status = 'in_doubt'

-- name: lanes_in_doubt
SELECT DISTINCT lane_key FROM outbox_messages WHERE status = 'in_doubt' AND doubt_until IS NOT NULL

-- name: restart_doubts
UPDATE outbox_messages SET doubt_until = max(doubt_from, :now) + :wait
WHERE status = 'in_doubt' AND doubt_until IS NOT NULL
RETURNING lane_key, doubt_until

-- name: pause_channel
INSERT INTO channels (name, paused_until, reason) VALUES (:name, :paused_until, :reason)
ON CONFLICT (name) DO UPDATE SET
    paused_until = max(paused_until, excluded.paused_until), reason = excluded.reason

-- name: channel_pause
SELECT paused_until, reason FROM channels WHERE name = :name AND paused_until > :now

-- name: insert_receipt
INSERT INTO receipts (id, channel, message_id, attempt, provider_message_id, status, error, provider_time,
    received_at, raw)
VALUES (:id, :channel, :message_id, :attempt, :provider_message_id, :status, :error, :provider_time, :now, :raw)

-- name: receipt
SELECT * FROM receipts WHERE id = :id

-- name: join_receipt
UPDATE receipts SET message_id = :message_id, attempt = :attempt WHERE id = :id

-- name: park_receipt
INSERT INTO parked_updates (channel, provider_id, receipt_id, received_at)
VALUES (:channel, :provider_id, :receipt_id, :now)

-- name: take_parked_receipts
DELETE FROM parked_updates WHERE channel = :channel AND provider_id = :provider_id RETURNING receipt_id

-- name: list_messages
SELECT * FROM outbox_messages WHERE id < :after AND (:status IS NULL OR status = :status)
ORDER BY id DESC LIMIT :limit

-- name: list_messages_of
SELECT * FROM outbox_messages
WHERE participant_id = :participant_id AND id < :after AND (:status IS NULL OR status = :status)
ORDER BY id DESC LIMIT :limit
