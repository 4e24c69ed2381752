-- name: pause_queue
INSERT INTO queues (name, paused, updated_at) VALUES (:name, :paused, promptpipe_now())
ON CONFLICT (name) DO UPDATE SET paused = excluded.paused, updated_at = excluded.updated_at

-- name: limit_queue
INSERT INTO queues (name, concurrency, updated_at) VALUES (:name, :concurrency, promptpipe_now())
ON CONFLICT (name) DO UPDATE SET concurrency = excluded.concurrency, updated_at = excluded.updated_at

-- name: queue_stats
-- What is live is read as a whole; what has failed is few.
SELECT name, coalesce(paused, false) AS paused, concurrency, coalesce(scheduled, 0) AS scheduled, coalesce(ready, 0) AS ready,
    coalesce(running, 0) AS running, coalesce(failed, 0) AS failed, promptpipe_now() - oldest AS lag
FROM (
    SELECT queue AS name,
        count(*) FILTER (WHERE worker IS NULL AND due_at > promptpipe_now()) AS scheduled,
        count(*) FILTER (WHERE worker IS NULL AND due_at <= promptpipe_now()) AS ready,
        count(*) FILTER (WHERE worker IS NOT NULL) AS running,
        min(due_at) FILTER (WHERE worker IS NULL AND due_at <= promptpipe_now()) AS oldest
    FROM jobs GROUP BY queue
) AS live
FULL JOIN (SELECT queue AS name, count(*) AS failed FROM job_history WHERE status = 'failed' GROUP BY queue) AS ended
    USING (name)
FULL JOIN queues USING (name)
WHERE :name::text IS NULL OR name = :name
ORDER BY name
