-- name: prune_done_jobs
-- Who enqueues with a key that is held gets its job: that stays as long.
-- By the id, which holds the time when the job was made: none is made after it has ended.
DELETE FROM job_errors WHERE job_id IN (
    SELECT id FROM job_history WHERE id > :after AND id < :before AND status = 'done' AND finished_at < :now - :age
        AND NOT EXISTS (
            SELECT 1 FROM job_dedupe WHERE key = dedupe_key AND job_id = job_history.id AND until > :now
        )
    ORDER BY id LIMIT :limit
);
DELETE FROM job_history WHERE id IN (
    SELECT id FROM job_history WHERE id > :after AND id < :before AND status = 'done' AND finished_at < :now - :age
        AND NOT EXISTS (
            SELECT 1 FROM job_dedupe WHERE key = dedupe_key AND job_id = job_history.id AND until > :now
        )
    ORDER BY id LIMIT :limit
)
RETURNING id AS position

-- name: prune_ended_jobs
DELETE FROM job_errors WHERE job_id IN (
    SELECT id FROM job_history
    WHERE status = :status AND status <> 'done' AND finished_at >= :after AND finished_at < :now - :age
        AND NOT EXISTS (
            SELECT 1 FROM job_dedupe WHERE key = dedupe_key AND job_id = job_history.id AND until > :now
        )
    ORDER BY finished_at, id LIMIT :limit
);
DELETE FROM job_history WHERE id IN (
    SELECT id FROM job_history
    WHERE status = :status AND status <> 'done' AND finished_at >= :after AND finished_at < :now - :age
        AND NOT EXISTS (
            SELECT 1 FROM job_dedupe WHERE key = dedupe_key AND job_id = job_history.id AND until > :now
        )
    ORDER BY finished_at, id LIMIT :limit
)
RETURNING finished_at AS position

-- name: prune_job_keys
DELETE FROM job_dedupe WHERE key IN (
    SELECT key FROM job_dedupe WHERE until >= :after AND until <= :now ORDER BY until LIMIT :limit
)
RETURNING until AS position

-- name: prune_inbound_marks
DELETE FROM inbound_dedup WHERE (channel, number_id, kind, provider_id, status) IN (
    SELECT channel, number_id, kind, provider_id, status FROM inbound_dedup
    WHERE seen_at >= :after AND seen_at < :now - :age ORDER BY seen_at LIMIT :limit
)
RETURNING seen_at AS position

-- name: prune_refusals
DELETE FROM refusals WHERE event_id IN (
    SELECT event_id FROM refusals WHERE created_at >= :after AND created_at < :now - :age ORDER BY created_at LIMIT :limit
)
RETURNING created_at AS position
