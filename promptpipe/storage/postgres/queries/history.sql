-- name: list_responses
SELECT * FROM responses WHERE id < :after ORDER BY id DESC LIMIT :limit

-- name: list_responses_of
SELECT * FROM responses WHERE participant_id = :participant_id AND id < :after ORDER BY id DESC LIMIT :limit

-- name: list_receipts
SELECT * FROM receipts WHERE id < :after ORDER BY id DESC LIMIT :limit

-- name: list_receipts_of
SELECT * FROM receipts WHERE message_id = :message_id AND id < :after ORDER BY id DESC LIMIT :limit
