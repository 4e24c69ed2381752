-- name: mark_seen
-- *marks* is a JSON array; those that are new are returned.
INSERT INTO inbound_dedup (channel, number_id, kind, provider_id, status, seen_at)
SELECT value ->> 'channel', value ->> 'number_id', value ->> 'kind', value ->> 'provider_id', value ->> 'status', :now
FROM json_each(:marks) WHERE true
ON CONFLICT DO NOTHING
RETURNING channel, number_id, provider_id

-- name: insert_responses
-- *responses* is a JSON array, times in it microseconds since 1970, and what was received as text.
INSERT INTO responses (id, participant_id, channel, number_id, message_id, sender, type, text, raw, provider_time,
    received_at)
SELECT value ->> 'id', value ->> 'participant_id', value ->> 'channel', value ->> 'number_id', value ->> 'message_id',
    value ->> 'sender', value ->> 'type', value ->> 'text', CAST(value ->> 'raw' AS BLOB), value ->> 'provider_time', :now
FROM json_each(:responses)

-- name: insert_response
INSERT INTO responses (id, participant_id, channel, number_id, message_id, sender, type, text, raw, provider_time,
    received_at)
VALUES (:id, :participant_id, :channel, :number_id, :message_id, :sender, :type, :text, :raw, :provider_time, :now)
