-- name: participants
SELECT * FROM conversation_participants WHERE id IN (SELECT value FROM json_each(:participant_ids))

-- name: participant_to_change
SELECT * FROM conversation_participants WHERE id = :id

-- name: participant_to_write_to
-- Until this has committed, nobody erases them.
SELECT id FROM conversation_participants WHERE id = :id

-- name: addresses_of
SELECT participant_id, channel, address, kind FROM participant_addresses
WHERE participant_id IN (SELECT value FROM json_each(:participant_ids))
ORDER BY created_at, kind, address

-- name: owners_of_addresses
-- *addresses* is a JSON array.
SELECT channel, address, participant_id FROM json_each(:addresses) AS wanted
CROSS JOIN participant_addresses ON channel = wanted.value ->> 'channel' AND address = wanted.value ->> 'address'

-- name: writers
-- The same, of those who wrote.
SELECT channel, address, participant_id FROM json_each(:addresses) AS wanted
CROSS JOIN participant_addresses ON channel = wanted.value ->> 'channel' AND address = wanted.value ->> 'address'

-- name: insert_participant
INSERT INTO conversation_participants (id, status, channel, name, gender, ethnicity, background, timezone,
    created_at, updated_at)
VALUES (:id, 'active', :channel, :name, :gender, :ethnicity, :background, :timezone, :now, :now)

-- name: insert_address
INSERT INTO participant_addresses (channel, address, kind, participant_id, created_at)
VALUES (:channel, :address, :kind, :participant_id, :now)
ON CONFLICT DO NOTHING

-- name: set_participants_channel
UPDATE conversation_participants SET channel = :channel, updated_at = :now
WHERE id IN (SELECT value FROM json_each(:ids)) AND channel <> :channel

-- name: flow_states_of
SELECT * FROM flow_states WHERE participant_id IN (SELECT value FROM json_each(:participant_ids))

-- name: flow_state
SELECT * FROM flow_states WHERE participant_id = :participant_id AND flow_type = :flow_type

-- name: insert_flow_state
INSERT INTO flow_states (participant_id, flow_type, current_state, state_data, version, created_at, updated_at)
VALUES (:participant_id, :flow_type, :current_state, :state_data, 1, :now, :now)
ON CONFLICT DO NOTHING

-- name: change_flow_states
-- *changes* is a JSON array.
UPDATE flow_states SET current_state = value ->> 'current_state', state_data = value -> 'state_data',
    version = version + 1, updated_at = :now
FROM json_each(:changes)
WHERE flow_states.participant_id = value ->> 'participant_id' AND flow_states.flow_type = value ->> 'flow_type'
    AND version = value ->> 'from_version'
RETURNING participant_id, flow_type

-- name: hooks_of
-- The one that expires soonest comes first: a question's handler before the conversation's.
SELECT participant_id, handler_type, flow_type, expires_at, data FROM registered_hooks WHERE participant_id IN (SELECT value FROM json_each(:participant_ids))
    AND (expires_at IS NULL OR expires_at > :now)
ORDER BY expires_at IS NULL, expires_at, created_at DESC

-- name: insert_hook
INSERT INTO registered_hooks (participant_id, handler_type, flow_type, expires_at, data, created_at)
VALUES (:participant_id, :handler_type, :flow_type, :expires_at, :data, :now)
ON CONFLICT DO NOTHING

-- name: replace_hook
INSERT INTO registered_hooks (participant_id, handler_type, flow_type, expires_at, data, created_at)
VALUES (:participant_id, :handler_type, :flow_type, :expires_at, :data, :now)
ON CONFLICT (participant_id, handler_type) DO UPDATE SET flow_type = excluded.flow_type,
    expires_at = excluded.expires_at, data = excluded.data, created_at = excluded.created_at

-- name: remove_hook
DELETE FROM registered_hooks WHERE participant_id = :participant_id AND handler_type = :handler_type

-- name: list_participants
SELECT * FROM conversation_participants WHERE id < :after AND (:status IS NULL OR status = :status)
ORDER BY id DESC LIMIT :limit

-- name: update_participant
UPDATE conversation_participants SET status = :status, name = :name, gender = :gender, ethnicity = :ethnicity,
    background = :background, timezone = :timezone, updated_at = :now
WHERE id = :id

-- name: list_flow_states
SELECT *, participant_id || '/' || flow_type AS id FROM flow_states
WHERE (participant_id, flow_type) < (:after, :after_type) AND (:flow_type IS NULL OR flow_type = :flow_type)
ORDER BY participant_id DESC, flow_type DESC LIMIT :limit

-- name: list_flow_states_of
SELECT *, participant_id || '/' || flow_type AS id FROM flow_states
WHERE participant_id = :participant_id AND (participant_id, flow_type) < (:after, :after_type)
    AND (:flow_type IS NULL OR flow_type = :flow_type)
ORDER BY flow_type DESC LIMIT :limit
