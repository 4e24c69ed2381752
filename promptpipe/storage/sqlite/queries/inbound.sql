-- name: mark_seen
INSERT INTO inbound_dedup (channel, number_id, kind, provider_id, status, seen_at)
VALUES (:channel, :number_id, :kind, :provider_id, :status, :now)
ON CONFLICT DO NOTHING
RETURNING 1 AS one

-- name: insert_response
INSERT INTO responses (id, participant_id, channel, number_id, message_id, sender, type, text, raw, provider_time,
    received_at)
VALUES (:id, :participant_id, :channel, :number_id, :message_id, :sender, :type, :text, :raw, :provider_time, :now)
