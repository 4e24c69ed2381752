-- name: pause_queue
INSERT INTO queues (name, paused, updated_at) VALUES (:name, :paused, :now)
ON CONFLICT (name) DO UPDATE SET paused = excluded.paused, updated_at = excluded.updated_at

-- name: limit_queue
INSERT INTO queues (name, concurrency, updated_at) VALUES (:name, :concurrency, :now)
ON CONFLICT (name) DO UPDATE SET concurrency = excluded.concurrency, updated_at = excluded.updated_at

-- name: queue_stats
-- What is live is read as a whole; what has failed is few.
SELECT known.name, coalesce(paused, 0) AS paused, concurrency, coalesce(scheduled, 0) AS scheduled,
    coalesce(ready, 0) AS ready, coalesce(running, 0) AS running, coalesce(failed, 0) AS failed, :now - oldest AS lag
FROM (
    SELECT queue AS name FROM jobs UNION SELECT queue FROM job_history WHERE status = 'failed' AND status <> 'done' UNION SELECT name FROM queues
) AS known
LEFT JOIN (
    SELECT queue AS name,
        count(*) FILTER (WHERE worker IS NULL AND due_at > :now) AS scheduled,
        count(*) FILTER (WHERE worker IS NULL AND due_at <= :now) AS ready,
        count(*) FILTER (WHERE worker IS NOT NULL) AS running,
        min(due_at) FILTER (WHERE worker IS NULL AND due_at <= :now) AS oldest
    FROM jobs GROUP BY queue
) AS live ON live.name = known.name
LEFT JOIN (SELECT queue AS name, count(*) AS failed FROM job_history WHERE status = 'failed' AND status <> 'done' GROUP BY queue) AS ended
    ON ended.name = known.name
LEFT JOIN queues ON queues.name = known.name
WHERE :name IS NULL OR known.name = :name
ORDER BY known.name
