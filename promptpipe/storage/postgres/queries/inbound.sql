-- name: mark_seen
-- *marks* is a JSON array; those that are new are returned.
INSERT INTO inbound_dedup (channel, number_id, kind, provider_id, status, seen_at)
SELECT channel, number_id, kind, provider_id, status, promptpipe_now()
FROM jsonb_to_recordset(:marks::jsonb) AS mark (channel text, number_id text, kind text, provider_id text, status text)
ORDER BY provider_id COLLATE "C"
ON CONFLICT DO NOTHING
RETURNING channel, number_id, provider_id

-- name: insert_responses
-- *responses* is a JSON array, times in it microseconds since 1970, and what was received as text.
INSERT INTO responses (id, participant_id, channel, number_id, message_id, sender, type, text, raw, provider_time,
    received_at)
SELECT id, participant_id, channel, number_id, message_id, sender, type, text, convert_to(raw, 'UTF8'),
    'epoch'::timestamptz + provider_time * interval '1 microsecond', promptpipe_now()
FROM jsonb_to_recordset(:responses::jsonb) AS response (id text, participant_id text, channel text, number_id text,
    message_id text, sender text, type text, text text, raw text, provider_time bigint)

-- name: insert_response
INSERT INTO responses (id, participant_id, channel, number_id, message_id, sender, type, text, raw, provider_time,
    received_at)
VALUES (:id, :participant_id, :channel, :number_id, :message_id, :sender, :type, :text, :raw, :provider_time, promptpipe_now())
