-- name: active_participants_without_handler
SELECT f.participant_id FROM flow_states f JOIN conversation_participants p ON p.id = f.participant_id
WHERE f.flow_type = :flow_type AND f.participant_id > :after AND p.status = 'active'
    AND NOT EXISTS (SELECT 1 FROM registered_hooks h
                    WHERE h.participant_id = f.participant_id AND h.flow_type = f.flow_type)
ORDER BY f.participant_id LIMIT :limit

-- name: lost_timers
SELECT f.participant_id, f.state_data, json_extract(f.state_data, '$."' || :data_key || '"') AS job_id,
    EXISTS (SELECT 1 FROM job_history h WHERE h.id = json_extract(f.state_data, '$."' || :data_key || '"')) AS ended
FROM flow_states f JOIN conversation_participants p ON p.id = f.participant_id
WHERE f.flow_type = :flow_type AND f.participant_id > :after AND p.status = 'active'
    AND json_extract(f.state_data, '$."' || :data_key || '"') IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.id = json_extract(f.state_data, '$."' || :data_key || '"'))
    AND NOT EXISTS (SELECT 1 FROM mailbox_events e WHERE e.job_id = json_extract(f.state_data, '$."' || :data_key || '"'))
ORDER BY f.participant_id LIMIT :limit

-- name: count_active
SELECT count(*) AS n FROM flow_states f JOIN conversation_participants p ON p.id = f.participant_id
WHERE f.flow_type = :flow_type AND p.status = 'active'

-- name: insert_report
INSERT INTO recovery_reports (id, started_at, report) VALUES (:id, :started_at, :report)

-- name: list_reports
SELECT id, report FROM recovery_reports WHERE id < :after ORDER BY id DESC LIMIT :limit

-- name: last_report
SELECT report FROM recovery_reports ORDER BY id DESC LIMIT 1
