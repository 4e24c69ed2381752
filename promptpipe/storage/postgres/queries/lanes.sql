-- name: next_fence
SELECT nextval('fences') AS value

-- name: probe
-- Its commit waits for the disk, and for standbys: a number of a sequence is written only now and then.
SELECT pg_logical_emit_message(true, 'promptpipe', '')

-- name: append_to_lanes
-- *appended* is a JSON object: how many are appended, by the lanes' keys. Locked in the order in which everybody does.
-- Only an empty lane becomes due by this: one that is held, or backs off, keeps its time. Among those in *take*, it is
-- leased on the spot.
WITH mark AS MATERIALIZED (
    SELECT CASE WHEN cardinality(:take::text[]) > 0 THEN nextval('fences') END AS fence, promptpipe_now() AS now
)
INSERT INTO lanes (kind, key, priority, seq, due_at, leased, worker, fence)
SELECT :kind, key, :priority, appended::bigint, now + CASE WHEN wanted THEN :lease::interval ELSE '0' END, wanted,
    CASE WHEN wanted THEN :worker::text END, CASE WHEN wanted THEN fence ELSE 0 END
FROM mark, jsonb_each_text(:appended::jsonb) AS lane (key, appended),
    LATERAL (SELECT lane.key = ANY (:take) AS wanted) AS _
ORDER BY key COLLATE "C"
ON CONFLICT (kind, key) DO UPDATE SET
    seq = lanes.seq + excluded.seq,
    (due_at, leased, worker, fence) = (
        SELECT CASE
                WHEN lanes.due_at IS NOT NULL THEN lanes.due_at
                WHEN taken THEN excluded.due_at
                ELSE greatest(now, lanes.pace_at)
            END,
            lanes.leased OR taken,
            CASE WHEN taken THEN excluded.worker ELSE lanes.worker END,
            CASE WHEN taken THEN excluded.fence ELSE lanes.fence END
        FROM mark, LATERAL (
            SELECT excluded.leased AND lanes.due_at IS NULL AND lanes.pace_at <= now AS taken
        ) AS _
    )
RETURNING key, seq, fence, leased AND fence = (SELECT fence FROM mark) AS taken,
    NOT leased AND due_at >= (SELECT now FROM mark) AS due

-- name: claim_lanes
-- Replies before broadcasts, and then the longest due. A lease that ran out counts as a crash: `leased` is still true
-- then. *crashed* wants suspects. What was claimed last is where the next claim begins (*floors*).
WITH due AS MATERIALIZED (
    SELECT key, due_at FROM unnest(ARRAY[0, 1], :floors::timestamptz[]) AS level (priority, floor), LATERAL (
        SELECT key, due_at FROM lanes
        WHERE kind = :kind AND priority = level.priority AND due_at >= level.floor AND due_at <= promptpipe_now()
            AND (crashes + leased::int >= :suspect_from) = :crashed AND key <> ALL (:held)
        ORDER BY due_at, key LIMIT :limit FOR UPDATE SKIP LOCKED
    ) AS found
    LIMIT :limit
)
UPDATE lanes SET
    crashes = crashes + leased::int, leased = true, worker = :worker, fence = (SELECT nextval('fences')),
    due_at = promptpipe_now() + :lease
FROM due WHERE kind = :kind AND lanes.key = due.key
RETURNING lanes.key, fence, priority, crashes, due.due_at AS was_due, promptpipe_now() AS now

-- name: next_due_lane
-- Beyond *sight* are the ends of leases, most of which are gone.
SELECT min(due_at) - promptpipe_now() AS due_in FROM unnest(ARRAY[0, 1]) AS level (priority), LATERAL (
    SELECT due_at FROM lanes
    WHERE kind = :kind AND priority = level.priority
        AND due_at > promptpipe_now() AND due_at <= promptpipe_now() + :sight
    ORDER BY due_at LIMIT 1
) AS next

-- name: held_lanes
-- *leases* is a JSON object: the fences by the lanes' keys. Locked in the order in which everybody does.
SELECT l.key, l.fence FROM jsonb_each_text(:leases::jsonb) AS wanted (key, fence)
JOIN lanes l ON l.kind = :kind AND l.key = wanted.key AND l.fence = wanted.fence::bigint
WHERE l.leased ORDER BY l.key FOR UPDATE OF l

-- name: extend_lanes
-- Locked in the order in which everybody does.
WITH held AS MATERIALIZED (
    SELECT l.key FROM jsonb_each_text(:leases::jsonb) AS wanted (key, fence)
    JOIN lanes l ON l.kind = :kind AND l.key = wanted.key AND l.fence = wanted.fence::bigint
    WHERE l.leased ORDER BY l.key FOR UPDATE OF l
)
UPDATE lanes SET due_at = promptpipe_now() + :lease FROM held
WHERE lanes.kind = :kind AND lanes.key = held.key
RETURNING lanes.key, lanes.fence

-- name: keep_lanes
-- Their holder goes on, under the same fences; *orderly* is 1 when it has come to the end of an item in each.
-- Those that have most of their lease before them stay as they are.
UPDATE lanes SET due_at = promptpipe_now() + :lease, crashes = crashes * (1 - :orderly)
WHERE kind = :kind AND key = ANY (:keys)
    AND (due_at < promptpipe_now() + :kept OR crashes > 0)

-- name: release_lanes
UPDATE lanes SET
    due_at = CASE WHEN :due_at::timestamptz IS NULL THEN NULL ELSE greatest(:due_at::timestamptz, pace_at) END,
    leased = false, worker = NULL, crashes = 0
WHERE kind = :kind AND key = ANY (:keys)

-- name: set_lane_due
-- For a lane that nobody holds.
UPDATE lanes SET
    due_at = CASE WHEN :due_at::timestamptz IS NULL THEN NULL ELSE greatest(:due_at::timestamptz, pace_at) END
WHERE kind = :kind AND key = :key AND NOT leased

-- name: set_pace
-- Made if need be: replies and broadcasts to one person share one pace, whichever comes first.
INSERT INTO lanes (kind, key, priority, pace_at) VALUES ('outbox', :key, :priority, :pace_at)
ON CONFLICT (kind, key) DO UPDATE SET
    pace_at = greatest(lanes.pace_at, excluded.pace_at),
    due_at = CASE
        WHEN lanes.leased OR lanes.due_at IS NULL THEN lanes.due_at
        ELSE greatest(lanes.due_at, excluded.pace_at)
    END

-- name: lanes_marked_for
-- Lanes whose heads a worker has marked, and has to send.
SELECT DISTINCT l.key, l.fence FROM outbox_messages m JOIN lanes l ON l.kind = 'outbox' AND l.key = m.lane_key
WHERE m.id = ANY (:ids) AND m.status = 'sending' AND l.worker = :worker

-- name: lanes_of_worker
SELECT kind, key, fence FROM lanes WHERE worker = :worker ORDER BY kind, key FOR UPDATE

-- name: stale_lanes
-- Their holder is gone, but what it has sent may be on its way until the lease is over.
SELECT key, due_at AS request_end FROM lanes
WHERE worker IS NOT NULL AND worker <> :me AND kind = :kind
    AND NOT EXISTS (SELECT 1 FROM instances i WHERE i.worker = lanes.worker)
ORDER BY key FOR UPDATE

-- name: abandon_lane
-- Its holder is gone without a word.
UPDATE lanes SET
    due_at = CASE WHEN :due_at::timestamptz IS NULL THEN NULL ELSE greatest(:due_at::timestamptz, pace_at) END,
    leased = false, worker = NULL, crashes = crashes + 1
WHERE kind = :kind AND key = :key

-- name: lease_recovery
-- One instance at a time recovers, until its lease is over or it is gone.
INSERT INTO lanes (kind, key, priority, due_at, leased, fence, worker)
VALUES ('recovery', 'recovery', 0, promptpipe_now() + :lease, true, :fence, :me)
ON CONFLICT (kind, key) DO UPDATE SET
    due_at = excluded.due_at, leased = true, fence = excluded.fence, worker = excluded.worker
WHERE NOT lanes.leased OR lanes.due_at <= promptpipe_now()
    OR lanes.worker <> :me AND NOT EXISTS (SELECT 1 FROM instances i WHERE i.worker = lanes.worker)
RETURNING 1 AS one

-- name: end_recovery
UPDATE lanes SET due_at = NULL, leased = false, worker = NULL WHERE kind = 'recovery' AND fence = :fence

-- name: lock_lanes
SELECT l.key FROM unnest(:kinds::text[], :keys::text[]) AS wanted (kind, key)
JOIN lanes l ON l.kind = wanted.kind AND l.key = wanted.key
ORDER BY l.kind, l.key FOR UPDATE OF l

-- name: lock_names
SELECT pg_advisory_xact_lock(name) FROM unnest(:names::bigint[]) AS name
