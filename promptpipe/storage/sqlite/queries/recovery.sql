-- Those who are looked at are a flow's active participants, so many at a time: those from *first* to *last*.
-- What was edited into something that is not JSON must not stop a statement: it is taken for an empty state.

-- name: count_active
SELECT count(*) AS n FROM flow_states f JOIN conversation_participants p ON p.id = f.participant_id
WHERE f.flow_type = :flow_type AND p.status = 'active'

-- name: active_span
SELECT min(participant_id) AS first, max(participant_id) AS last, count(*) AS n FROM (
    SELECT f.participant_id FROM flow_states f JOIN conversation_participants p ON p.id = f.participant_id
    WHERE f.flow_type = :flow_type AND f.participant_id > :after AND p.status = 'active'
    ORDER BY f.participant_id LIMIT :limit
) AS these

-- name: active_participants_without_handler
SELECT f.participant_id FROM flow_states f JOIN conversation_participants p ON p.id = f.participant_id
WHERE f.flow_type = :flow_type AND f.participant_id BETWEEN :first AND :last AND p.status = 'active'
    AND NOT EXISTS (SELECT 1 FROM registered_hooks h
                    WHERE h.participant_id = f.participant_id AND h.flow_type = f.flow_type)
ORDER BY f.participant_id

-- name: lost_timers
WITH named AS (
    SELECT f.participant_id, f.state_data, CASE WHEN json_valid(f.state_data) THEN json_extract(f.state_data, '$."' || :data_key || '"') END AS job_id
    FROM flow_states f JOIN conversation_participants p ON p.id = f.participant_id
    WHERE f.flow_type = :flow_type AND f.participant_id BETWEEN :first AND :last AND p.status = 'active'
)
SELECT participant_id, state_data, job_id,
    EXISTS (SELECT 1 FROM job_history h WHERE h.id = named.job_id) AS ended
FROM named
WHERE job_id IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.id = named.job_id)
    AND NOT EXISTS (SELECT 1 FROM mailbox_events e WHERE e.job_id = named.job_id)
ORDER BY participant_id

-- name: missing_timers
SELECT f.participant_id, f.state_data
FROM flow_states f JOIN conversation_participants p ON p.id = f.participant_id
WHERE f.flow_type = :flow_type AND f.participant_id BETWEEN :first AND :last AND p.status = 'active'
    AND CASE WHEN json_valid(f.state_data) THEN json_extract(f.state_data, '$."' || :waiting_key || '"') END IS NOT NULL
    AND CASE WHEN json_valid(f.state_data) THEN json_extract(f.state_data, '$."' || :data_key || '"') END IS NULL
    AND NOT EXISTS (SELECT 1 FROM mailbox_events e WHERE e.job_id = :data_key || ':' || f.participant_id)
ORDER BY f.participant_id

-- name: misshapen_states
-- *shapes* is a JSON object: the types by the keys. What is no object at all is told under the key ''.
WITH these AS (
    SELECT f.participant_id, f.state_data,
        CASE WHEN json_valid(f.state_data) THEN json_type(f.state_data) = 'object' ELSE 0 END AS is_object
    FROM flow_states f JOIN conversation_participants p ON p.id = f.participant_id
    WHERE f.flow_type = :flow_type AND f.participant_id BETWEEN :first AND :last AND p.status = 'active'
)
SELECT participant_id, '' AS key FROM these WHERE NOT is_object
UNION ALL
SELECT participant_id, shape.key FROM these CROSS JOIN json_each(:shapes) AS shape
WHERE is_object AND replace(json_type(CASE WHEN is_object THEN state_data ELSE '{}' END, '$."' || shape.key || '"'),
    'text', 'string') NOT IN (shape.value, 'null')
ORDER BY 1, 2

-- name: unknown_flows
SELECT f.flow_type, count(*) AS n FROM flow_states f JOIN conversation_participants p ON p.id = f.participant_id
WHERE p.status = 'active' AND f.flow_type NOT IN (SELECT value FROM json_each(:known))
GROUP BY f.flow_type ORDER BY f.flow_type

-- name: orphaned_handlers
SELECT h.participant_id, h.handler_type FROM registered_hooks h
WHERE NOT EXISTS (SELECT 1 FROM conversation_participants p WHERE p.id = h.participant_id)
ORDER BY h.participant_id, h.handler_type LIMIT :limit

-- name: delete_orphaned_handler
DELETE FROM registered_hooks
WHERE participant_id = :participant_id AND handler_type = :handler_type
    AND NOT EXISTS (SELECT 1 FROM conversation_participants p WHERE p.id = registered_hooks.participant_id)

-- name: stuck_lanes
-- A lane with something in it is due or held, and its row knows the last place that was given.
SELECT kind, key FROM (
    SELECT 'mailbox' AS kind, participant_id AS key, max(seq) AS last FROM mailbox_events
    WHERE seq IS NOT NULL AND EXISTS (SELECT 1 FROM conversation_participants p WHERE p.id = participant_id)
    GROUP BY participant_id
    UNION ALL
    SELECT 'outbox' AS kind, lane_key AS key, max(seq) AS last FROM outbox_messages
    WHERE seq IS NOT NULL GROUP BY lane_key
) AS filled
WHERE NOT EXISTS (
    SELECT 1 FROM lanes l
    WHERE l.kind = filled.kind AND l.key = filled.key AND l.due_at IS NOT NULL AND l.seq >= filled.last
)
ORDER BY kind, key LIMIT :limit

-- name: rouse_mailbox
INSERT INTO lanes (kind, key, priority, seq, due_at)
SELECT 'mailbox', participant_id, 0, max(seq), :now FROM mailbox_events
WHERE participant_id = :key AND seq IS NOT NULL GROUP BY participant_id
ON CONFLICT (kind, key) DO UPDATE SET
    due_at = coalesce(due_at, max(excluded.due_at, pace_at)), seq = max(seq, excluded.seq)
WHERE due_at IS NULL OR seq < excluded.seq

-- name: rouse_outbox
INSERT INTO lanes (kind, key, priority, seq, due_at)
SELECT 'outbox', lane_key, max(CASE class WHEN 'broadcast' THEN 1 ELSE 0 END), max(seq), :now FROM outbox_messages
WHERE lane_key = :key AND seq IS NOT NULL GROUP BY lane_key
ON CONFLICT (kind, key) DO UPDATE SET
    due_at = coalesce(due_at, max(excluded.due_at, pace_at)), seq = max(seq, excluded.seq)
WHERE due_at IS NULL OR seq < excluded.seq

-- name: stray_messages
SELECT m.id, m.lane_key FROM outbox_messages m LEFT JOIN lanes l ON l.kind = 'outbox' AND l.key = m.lane_key
WHERE m.status = 'sending' AND m.seq IS NOT NULL AND NOT coalesce(l.leased, 0)
    AND NOT EXISTS (SELECT 1 FROM outbox_messages b WHERE b.lane_key = m.lane_key AND b.seq < m.seq)
ORDER BY m.id LIMIT :limit

-- name: stray_message_of
SELECT m.id FROM outbox_messages m LEFT JOIN lanes l ON l.kind = 'outbox' AND l.key = m.lane_key
WHERE m.lane_key = :lane_key AND m.status = 'sending' AND m.seq IS NOT NULL AND NOT coalesce(l.leased, 0)

-- name: ids_of_stray_schedules
SELECT id FROM schedules WHERE next_at IS NULL AND NOT paused ORDER BY id LIMIT :limit

-- name: ended_leases
SELECT 'job' AS work, count(*) AS n FROM jobs WHERE worker IS NOT NULL AND due_at <= :now
UNION ALL
SELECT kind AS work, count(*) AS n FROM lanes
WHERE leased AND due_at <= :now AND kind IN ('mailbox', 'outbox') GROUP BY kind

-- name: insert_report
INSERT INTO recovery_reports (id, started_at, report) VALUES (:id, :started_at, :report)

-- name: list_reports
SELECT id, report FROM recovery_reports WHERE id < :after ORDER BY id DESC LIMIT :limit

-- name: last_report
SELECT report FROM recovery_reports ORDER BY id DESC LIMIT 1
