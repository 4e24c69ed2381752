-- The first schema. Instants are integer microseconds since 1970 (UTC); ids are UUIDv7 text; JSON is text.
-- There are no foreign keys: rows are only ever written by the transactions of this package, in one order.

CREATE TABLE sequences (
    name  TEXT    PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO sequences (name, value) VALUES ('fence', 0);

-- ---------------------------------------------------------------------------------------------- people

CREATE TABLE conversation_participants (
    id         TEXT    PRIMARY KEY,
    status     TEXT    NOT NULL,              -- active | paused | completed | withdrawn
    channel    TEXT    NOT NULL,              -- where they wrote last
    name       TEXT,
    gender     TEXT,
    ethnicity  TEXT,
    background TEXT,
    timezone   TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE participant_addresses (
    channel        TEXT    NOT NULL,
    address        TEXT    NOT NULL,
    kind           TEXT    NOT NULL,          -- phone | user_id
    participant_id TEXT    NOT NULL,
    created_at     INTEGER NOT NULL,
    PRIMARY KEY (channel, address)            -- decides enrollment races
) STRICT, WITHOUT ROWID;

CREATE INDEX participant_addresses_owner ON participant_addresses (participant_id);

CREATE TABLE flow_states (
    participant_id TEXT    NOT NULL,
    flow_type      TEXT    NOT NULL,
    current_state  TEXT    NOT NULL,
    state_data     TEXT    NOT NULL,
    version        INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL,
    PRIMARY KEY (participant_id, flow_type)
) STRICT;

CREATE INDEX flow_states_type ON flow_states (flow_type, participant_id);

CREATE TABLE registered_hooks (
    participant_id TEXT    NOT NULL,
    handler_type   TEXT    NOT NULL,
    flow_type      TEXT    NOT NULL,
    expires_at     INTEGER,                   -- NULL: stays
    created_at     INTEGER NOT NULL,
    PRIMARY KEY (participant_id, handler_type)
) STRICT, WITHOUT ROWID;

-- ---------------------------------------------------------------------------------------------- jobs

-- Ready, timer, retry, snooze and expired lease are one thing: a row that is due. Ended rows are in job_history.
CREATE TABLE jobs (
    id               TEXT    PRIMARY KEY,
    queue            TEXT    NOT NULL,
    priority         INTEGER NOT NULL,        -- 0 first, 3 last
    due_at           INTEGER NOT NULL,        -- when it may be claimed; the lease's end while it runs
    kind             TEXT    NOT NULL,
    status           TEXT    NOT NULL,        -- queued | running; for people, never searched by a claim
    run_at           INTEGER NOT NULL,        -- the time that was asked for
    payload          TEXT    NOT NULL,
    dedupe_key       TEXT,
    participant_id   TEXT,                    -- set: it fires as an event in this person's mailbox
    attempt          INTEGER NOT NULL DEFAULT 0,
    max_attempts     INTEGER NOT NULL,
    crashes          INTEGER NOT NULL DEFAULT 0,  -- leases in a row that ended without a word
    fence            INTEGER NOT NULL DEFAULT 0,
    worker           TEXT,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    rerun_at         INTEGER,                 -- enqueued again (keep) while it ran
    rerun_payload    TEXT,
    last_error       TEXT,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL
) STRICT;

CREATE INDEX jobs_due ON jobs (queue, priority, due_at, id);
CREATE UNIQUE INDEX jobs_dedupe ON jobs (dedupe_key) WHERE dedupe_key IS NOT NULL;
CREATE INDEX jobs_worker ON jobs (worker) WHERE worker IS NOT NULL;

CREATE TABLE job_history (
    id             TEXT    PRIMARY KEY,
    queue          TEXT    NOT NULL,
    priority       INTEGER NOT NULL,
    kind           TEXT    NOT NULL,
    status         TEXT    NOT NULL,          -- done | failed | canceled
    run_at         INTEGER NOT NULL,
    payload        TEXT    NOT NULL,
    dedupe_key     TEXT,
    participant_id TEXT,
    attempt        INTEGER NOT NULL,
    max_attempts   INTEGER NOT NULL,
    worker         TEXT,
    last_error     TEXT,
    created_at     INTEGER NOT NULL,
    finished_at    INTEGER NOT NULL
) STRICT;

CREATE INDEX job_history_finished ON job_history (status, finished_at);

CREATE TABLE job_errors (
    job_id  TEXT    NOT NULL,
    attempt INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    type    TEXT    NOT NULL,
    message TEXT    NOT NULL,
    worker  TEXT
) STRICT;

CREATE INDEX job_errors_job ON job_errors (job_id, at);

-- ---------------------------------------------------------------------------------------------- lanes

-- A lane is a strictly ordered queue with one holder at a time. Its row stays when it is empty: it keeps the
-- pace, and the last seq given.
CREATE TABLE lanes (
    kind     TEXT    NOT NULL,                -- mailbox | outbox
    key      TEXT    NOT NULL,                -- mailbox: participant; outbox: participant/channel/class
    priority INTEGER NOT NULL,                -- 0: mailboxes and replies; 1: broadcasts
    due_at   INTEGER,                         -- NULL: nothing in it; the lease's end while it is held
    pace_at  INTEGER NOT NULL DEFAULT 0,      -- never due before this
    seq      INTEGER NOT NULL DEFAULT 0,      -- the last one given to an item
    leased   INTEGER NOT NULL DEFAULT 0,
    crashes  INTEGER NOT NULL DEFAULT 0,      -- leases in a row that ended without a word
    fence    INTEGER NOT NULL DEFAULT 0,
    worker   TEXT,
    PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX lanes_due ON lanes (kind, priority, due_at, key) WHERE due_at IS NOT NULL;
CREATE INDEX lanes_worker ON lanes (worker) WHERE worker IS NOT NULL;

CREATE TABLE mailbox_events (
    id             TEXT    PRIMARY KEY,
    participant_id TEXT    NOT NULL,
    seq            INTEGER,                   -- place in the mailbox; NULL: aside
    kind           TEXT    NOT NULL,
    payload        TEXT    NOT NULL,
    job_id         TEXT,                      -- of the timer that fired, or that recovery found lost
    dedupe_key     TEXT,                      -- a timer's key stays taken until its event is handled
    attempt        INTEGER NOT NULL DEFAULT 0,
    max_attempts   INTEGER NOT NULL,
    blocked        INTEGER NOT NULL DEFAULT 0,  -- microseconds for which it has held up its mailbox
    last_error     TEXT,
    created_at     INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX mailbox_events_order ON mailbox_events (participant_id, seq) WHERE seq IS NOT NULL;
CREATE INDEX mailbox_events_aside ON mailbox_events (participant_id, id) WHERE seq IS NULL;
CREATE INDEX mailbox_events_dedupe ON mailbox_events (dedupe_key) WHERE dedupe_key IS NOT NULL;
CREATE INDEX mailbox_events_job ON mailbox_events (job_id) WHERE job_id IS NOT NULL;

-- ---------------------------------------------------------------------------------------------- outbound

CREATE TABLE outbox_messages (
    id                  TEXT    PRIMARY KEY,
    participant_id      TEXT    NOT NULL,
    channel             TEXT    NOT NULL,
    recipient           TEXT    NOT NULL,
    recipient_kind      TEXT    NOT NULL,     -- phone | user_id
    class               TEXT    NOT NULL,     -- reply | broadcast
    lane_key            TEXT    NOT NULL,
    seq                 INTEGER,              -- place in its lane; NULL: not in it
    not_before          INTEGER,              -- enters the lane's tail then; NULL while it is in
    kind                TEXT    NOT NULL,     -- text
    body                TEXT    NOT NULL,
    status              TEXT    NOT NULL,
    attempts            INTEGER NOT NULL DEFAULT 0,  -- times marked SENDING
    uncounted           INTEGER NOT NULL DEFAULT 0,  -- of these, not counted against max_attempts
    max_attempts        INTEGER NOT NULL,
    dedupe_key          TEXT,                 -- holds 30 days, whatever the status
    flow_type           TEXT,                 -- the flow that waits for its `sent` or `failed`
    expires_at          INTEGER,
    in_doubt_policy     TEXT,                 -- resend | drop | hold; NULL: as configured
    doubt_from          INTEGER,              -- when the request surely had ended
    doubt_until         INTEGER,              -- when the policy decides
    provider_message_id TEXT,
    last_error          TEXT,
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL,
    sent_at             INTEGER,
    delivered_at        INTEGER,
    read_at             INTEGER,
    failed_at           INTEGER
) STRICT;

CREATE UNIQUE INDEX outbox_messages_order ON outbox_messages (lane_key, seq) WHERE seq IS NOT NULL;
CREATE UNIQUE INDEX outbox_messages_dedupe ON outbox_messages (dedupe_key) WHERE dedupe_key IS NOT NULL;
CREATE INDEX outbox_messages_not_before ON outbox_messages (not_before) WHERE not_before IS NOT NULL;
CREATE INDEX outbox_messages_in_doubt ON outbox_messages (doubt_until) WHERE status = 'in_doubt';

CREATE TABLE outbox_attempts (
    message_id  TEXT    NOT NULL,
    n           INTEGER NOT NULL,
    fence       INTEGER NOT NULL,
    channel     TEXT    NOT NULL,
    provider_id TEXT,
    state       TEXT    NOT NULL,             -- unsent | sending | in_doubt | dropped | sent | failed | delivered | read
    error       TEXT,
    started_at  INTEGER NOT NULL,
    ended_at    INTEGER,
    PRIMARY KEY (message_id, n)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX outbox_attempts_provider ON outbox_attempts (channel, provider_id) WHERE provider_id IS NOT NULL;

CREATE TABLE receipts (
    id                  TEXT    PRIMARY KEY,
    channel             TEXT    NOT NULL,
    message_id          TEXT,                 -- NULL: about no message we know (yet)
    attempt             INTEGER,
    provider_message_id TEXT    NOT NULL,
    status              TEXT    NOT NULL,
    error               TEXT,
    provider_time       INTEGER,
    received_at         INTEGER NOT NULL,
    raw                 BLOB    NOT NULL
) STRICT;

CREATE INDEX receipts_message ON receipts (message_id) WHERE message_id IS NOT NULL;

-- Statuses about messages whose provider id we do not know yet; the commit that learns it joins them.
CREATE TABLE parked_updates (
    channel     TEXT    NOT NULL,
    provider_id TEXT    NOT NULL,
    receipt_id  TEXT    NOT NULL,
    received_at INTEGER NOT NULL,
    PRIMARY KEY (channel, provider_id, receipt_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE channels (
    name         TEXT    PRIMARY KEY,
    paused_until INTEGER NOT NULL,
    reason       TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- ---------------------------------------------------------------------------------------------- inbound

CREATE TABLE inbound_dedup (
    channel     TEXT    NOT NULL,
    number_id   TEXT    NOT NULL,
    kind        TEXT    NOT NULL,             -- message | status | other
    provider_id TEXT    NOT NULL,
    status      TEXT    NOT NULL,             -- of a delivery status, else ''
    seen_at     INTEGER NOT NULL,
    PRIMARY KEY (channel, number_id, kind, provider_id, status)
) STRICT, WITHOUT ROWID;

CREATE INDEX inbound_dedup_seen ON inbound_dedup (seen_at);

CREATE TABLE responses (
    id             TEXT    PRIMARY KEY,
    participant_id TEXT,                      -- NULL: from nobody we know
    channel        TEXT    NOT NULL,
    number_id      TEXT    NOT NULL,
    message_id     TEXT    NOT NULL,          -- the provider's
    sender         TEXT    NOT NULL,
    type           TEXT    NOT NULL,
    text           TEXT    NOT NULL,
    raw            BLOB    NOT NULL,          -- the update as JSON, nothing replaced
    provider_time  INTEGER,
    received_at    INTEGER NOT NULL,
    processed_at   INTEGER                    -- when a flow had handled it
) STRICT;

CREATE INDEX responses_participant ON responses (participant_id, id);

-- ---------------------------------------------------------------------------------------------- recovery

CREATE TABLE recovery_reports (
    id         TEXT    PRIMARY KEY,
    started_at INTEGER NOT NULL,
    report     TEXT    NOT NULL
) STRICT;
