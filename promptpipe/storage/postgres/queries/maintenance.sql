-- name: prune_done_jobs
-- Who enqueues with a key that is held gets its job: that stays as long.
-- By the id, which holds the time when the job was made: none is made after it has ended. What another instance prunes
-- is left to it.
WITH old AS MATERIALIZED (
    SELECT id FROM job_history
    WHERE id > :after AND id < :before AND status = 'done' AND finished_at < promptpipe_now() - :age::interval
        AND NOT EXISTS (
            SELECT 1 FROM job_dedupe WHERE key = dedupe_key AND job_id = job_history.id AND until > promptpipe_now()
        )
    ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM job_history USING old WHERE job_history.id = old.id RETURNING job_history.id
), errors AS (
    DELETE FROM job_errors USING gone WHERE job_id = gone.id
)
SELECT id AS position FROM gone

-- name: prune_ended_jobs
WITH old AS MATERIALIZED (
    SELECT id FROM job_history
    WHERE status = :status AND status <> 'done' AND finished_at >= :after
        AND finished_at < promptpipe_now() - :age::interval
        AND NOT EXISTS (
            SELECT 1 FROM job_dedupe WHERE key = dedupe_key AND job_id = job_history.id AND until > promptpipe_now()
        )
    ORDER BY finished_at LIMIT :limit FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM job_history USING old WHERE job_history.id = old.id RETURNING job_history.id, finished_at
), errors AS (
    DELETE FROM job_errors USING gone WHERE job_id = gone.id
)
SELECT finished_at AS position FROM gone

-- name: prune_job_keys
WITH old AS MATERIALIZED (
    SELECT key FROM job_dedupe WHERE until >= :after AND until <= promptpipe_now()
    ORDER BY until LIMIT :limit FOR UPDATE SKIP LOCKED
)
DELETE FROM job_dedupe USING old WHERE job_dedupe.key = old.key
RETURNING until AS position

-- name: prune_inbound_marks
WITH old AS MATERIALIZED (
    SELECT channel, number_id, kind, provider_id, status FROM inbound_dedup
    WHERE seen_at >= :after AND seen_at < promptpipe_now() - :age::interval
    ORDER BY seen_at LIMIT :limit FOR UPDATE SKIP LOCKED
)
DELETE FROM inbound_dedup AS mark USING old
WHERE (mark.channel, mark.number_id, mark.kind, mark.provider_id, mark.status)
    = (old.channel, old.number_id, old.kind, old.provider_id, old.status)
RETURNING seen_at AS position

-- name: prune_refusals
WITH old AS MATERIALIZED (
    SELECT event_id FROM refusals WHERE created_at >= :after AND created_at < promptpipe_now() - :age::interval
    ORDER BY created_at LIMIT :limit FOR UPDATE SKIP LOCKED
)
DELETE FROM refusals USING old WHERE refusals.event_id = old.event_id
RETURNING created_at AS position
