-- name: beat
INSERT INTO instances (worker, process, beats, ready, started_at, beat_at)
VALUES (:worker, :process, 1, :ready, :now, :now)
ON CONFLICT (worker) DO UPDATE SET beats = beats + 1, ready = excluded.ready, beat_at = excluded.beat_at

-- name: other_instances
SELECT worker, process, beats FROM instances WHERE worker <> :me

-- name: another_ready
SELECT worker FROM instances WHERE worker <> :me AND ready AND beat_at > :now - :since LIMIT 1

-- name: delete_instance
DELETE FROM instances WHERE worker = :worker

-- name: delete_instance_if_still
DELETE FROM instances WHERE worker = :worker AND beats = :beats

-- name: delete_instances
DELETE FROM instances
