-- name: next_fence
UPDATE sequences SET value = value + 1 WHERE name = 'fence' RETURNING value

-- name: probe
UPDATE sequences SET value = value + 1 WHERE name = 'fence'

-- name: append_to_lanes
-- *appended* is a JSON object: how many are appended, by the lanes' keys.
-- Only an empty lane becomes due by this: one that is held, or backs off, keeps its time. Among those in *take*, it is
-- leased on the spot.
UPDATE sequences SET value = value + 1 WHERE name = 'fence' AND json_array_length(:take) > 0;
INSERT INTO lanes (kind, key, priority, seq, due_at, leased, worker, fence)
SELECT :kind, lane.key, :priority, lane.value, :now + CASE WHEN wanted.key IS NULL THEN 0 ELSE :lease END,
    wanted.key IS NOT NULL, CASE WHEN wanted.key IS NOT NULL THEN :worker END,
    CASE WHEN wanted.key IS NULL THEN 0 ELSE (SELECT value FROM sequences WHERE name = 'fence') END
FROM json_each(:appended) AS lane LEFT JOIN json_each(:take) AS wanted ON wanted.value = lane.key WHERE true
ON CONFLICT (kind, key) DO UPDATE SET
    seq = seq + excluded.seq,
    due_at = CASE
        WHEN due_at IS NOT NULL THEN due_at
        WHEN excluded.leased AND pace_at <= :now THEN excluded.due_at
        ELSE max(:now, pace_at)
    END,
    leased = leased OR (excluded.leased AND due_at IS NULL AND pace_at <= :now),
    worker = CASE WHEN excluded.leased AND due_at IS NULL AND pace_at <= :now THEN excluded.worker ELSE worker END,
    fence = CASE WHEN excluded.leased AND due_at IS NULL AND pace_at <= :now THEN excluded.fence ELSE fence END
RETURNING key, seq, fence, NOT leased AND due_at >= :now AS due,
    leased AND json_array_length(:take) > 0 AND fence = (SELECT value FROM sequences WHERE name = 'fence') AS taken

-- name: claim_lanes
-- Replies before broadcasts, and then the longest due. A lease that ran out counts as a crash: `leased` is still 1
-- then. *crashed* wants suspects.
UPDATE lanes SET
    crashes = crashes + leased, leased = 1, worker = :worker,
    fence = (SELECT value + 1 FROM sequences WHERE name = 'fence'), due_at = :now + :lease
WHERE kind = :kind AND key IN (
    SELECT key FROM (
        SELECT * FROM (
            SELECT key FROM lanes
            WHERE kind = :kind AND priority = 0 AND due_at <= :now
                AND (crashes + leased >= :suspect_from) = :crashed
                AND key NOT IN (SELECT value FROM json_each(:held))
            ORDER BY due_at, key LIMIT :limit
        )
        UNION ALL
        SELECT * FROM (
            SELECT key FROM lanes
            WHERE kind = :kind AND priority = 1 AND due_at <= :now
                AND (crashes + leased >= :suspect_from) = :crashed
                AND key NOT IN (SELECT value FROM json_each(:held))
            ORDER BY due_at, key LIMIT :limit
        )
    )
    LIMIT :limit
)
RETURNING key, fence, priority, crashes;
UPDATE sequences SET value = value + 1 WHERE name = 'fence' AND changes() > 0

-- name: next_due_lane
SELECT min((
    SELECT min(due_at) FROM lanes
    WHERE kind = :kind AND priority = level.value AND due_at > :now AND due_at <= :now + :sight
)) - :now AS due_in
FROM json_each('[0, 1]') AS level

-- name: held_lanes
-- *leases* is a JSON object: the fences by the lanes' keys.
SELECT lanes.key, lanes.fence FROM json_each(:leases) AS wanted
CROSS JOIN lanes ON kind = :kind AND lanes.key = wanted.key AND fence = wanted.value
WHERE leased = 1

-- name: extend_lanes
-- *leases* is a JSON object: the fences by the lanes' keys.
UPDATE lanes SET due_at = :now + :lease
WHERE kind = :kind AND leased = 1 AND (key, fence) IN
    (SELECT wanted.key, wanted.value FROM json_each(:leases) AS wanted)
RETURNING key, fence

-- name: keep_lanes
-- Their holder goes on, under the same fences; *orderly* is 1 when it has come to the end of an item in each.
-- Those that have most of their lease before them stay as they are.
UPDATE lanes SET due_at = :now + :lease, crashes = crashes * (1 - :orderly)
WHERE kind = :kind AND key IN (SELECT value FROM json_each(:keys))
    AND (due_at < :now + :kept OR crashes > 0)

-- name: release_lanes
UPDATE lanes SET due_at = max(:due_at, pace_at), leased = 0, worker = NULL, crashes = 0
WHERE kind = :kind AND key IN (SELECT value FROM json_each(:keys))

-- name: set_lane_due
-- For a lane that nobody holds.
UPDATE lanes SET due_at = max(:due_at, pace_at) WHERE kind = :kind AND key = :key AND leased = 0

-- name: set_pace
-- Made if need be: replies and broadcasts to one person share one pace, whichever comes first.
INSERT INTO lanes (kind, key, priority, pace_at) VALUES ('outbox', :key, :priority, :pace_at)
ON CONFLICT (kind, key) DO UPDATE SET
    pace_at = max(pace_at, excluded.pace_at),
    due_at = CASE WHEN leased THEN due_at ELSE max(due_at, excluded.pace_at) END

-- name: lanes_marked_for
-- Lanes whose heads a worker has marked, and has to send.
SELECT DISTINCT l.key, l.fence FROM outbox_messages m JOIN lanes l ON l.kind = 'outbox' AND l.key = m.lane_key
WHERE m.id IN (SELECT value FROM json_each(:ids)) AND m.status = 'sending' AND l.worker = :worker

-- name: lanes_of_worker
SELECT kind, key, fence FROM lanes WHERE worker = :worker ORDER BY kind, key

-- name: stale_lanes
-- The lock on the file proves that their holder is gone, and its requests with it.
SELECT key, :now AS request_end FROM lanes WHERE worker IS NOT NULL AND worker <> :me AND kind = :kind ORDER BY key

-- name: abandon_lane
-- Its holder is gone without a word.
UPDATE lanes SET due_at = max(:due_at, pace_at), leased = 0, worker = NULL, crashes = crashes + 1
WHERE kind = :kind AND key = :key

-- name: lease_recovery
-- One instance at a time recovers; who holds this in another process is gone.
INSERT INTO lanes (kind, key, priority, due_at, leased, fence, worker)
VALUES ('recovery', 'recovery', 0, :now + :lease, 1, :fence, :me)
ON CONFLICT (kind, key) DO UPDATE SET
    due_at = excluded.due_at, leased = 1, fence = excluded.fence, worker = excluded.worker
WHERE leased = 0 OR due_at <= :now OR worker IS NOT :me

-- name: end_recovery
UPDATE lanes SET due_at = NULL, leased = 0, worker = NULL WHERE kind = 'recovery' AND fence = :fence
