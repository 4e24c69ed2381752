-- The first schema. Ids are UUIDv7 text. There are no foreign keys: rows are only ever written by the transactions of
-- `promptpipe.storage.transactions`, in one order. Ids and keys are compared byte by byte, whatever the database's collation is.

-- The only clock: statements take the time from nowhere else. Stable, so that an index can be searched by it.
CREATE FUNCTION promptpipe_now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT statement_timestamp()';

-- Numbers of leases, never given twice.
CREATE SEQUENCE fences;

-- ---------------------------------------------------------------------------------------------- people

CREATE TABLE conversation_participants (
    id         text COLLATE "C" PRIMARY KEY,
    status     text             NOT NULL,                       -- active | paused | completed | withdrawn
    channel    text             NOT NULL,                       -- where they wrote last
    name       text,
    gender     text,
    ethnicity  text,
    background text,
    timezone   text,
    created_at timestamptz      NOT NULL,
    updated_at timestamptz      NOT NULL
);

CREATE TABLE participant_addresses (
    channel        text             NOT NULL,
    address        text             NOT NULL,
    kind           text             NOT NULL,                   -- phone | user_id
    participant_id text COLLATE "C" NOT NULL,
    created_at     timestamptz      NOT NULL,
    PRIMARY KEY (channel, address)            -- decides enrollment races
);

CREATE INDEX participant_addresses_owner ON participant_addresses (participant_id);

CREATE TABLE flow_states (
    participant_id text COLLATE "C" NOT NULL,
    flow_type      text COLLATE "C" NOT NULL,
    current_state  text             NOT NULL,
    state_data     jsonb            NOT NULL,
    version        integer          NOT NULL,
    created_at     timestamptz      NOT NULL,
    updated_at     timestamptz      NOT NULL,
    PRIMARY KEY (participant_id, flow_type)
);

CREATE INDEX flow_states_type ON flow_states (flow_type, participant_id);

CREATE TABLE registered_hooks (
    participant_id text COLLATE "C" NOT NULL,
    handler_type   text             NOT NULL,
    flow_type      text COLLATE "C" NOT NULL,
    expires_at     timestamptz,                                 -- NULL: stays
    created_at     timestamptz      NOT NULL,
    PRIMARY KEY (participant_id, handler_type)
);

-- ---------------------------------------------------------------------------------------------- jobs

-- Ready, timer, retry, snooze and expired lease are one thing: a row that is due. Ended rows are in job_history.
CREATE TABLE jobs (
    id               text COLLATE "C" PRIMARY KEY,
    queue            text             NOT NULL,
    priority         integer          NOT NULL,                 -- 0 first, 3 last
    due_at           timestamptz      NOT NULL,                 -- when it may be claimed; the lease's end while it runs
    kind             text             NOT NULL,
    status           text             NOT NULL,                 -- queued | running; for people, never searched by a claim
    run_at           timestamptz      NOT NULL,                 -- the time that was asked for
    payload          jsonb            NOT NULL,
    dedupe_key       text,
    participant_id   text COLLATE "C",                          -- set: it fires as an event in this person's mailbox
    attempt          integer          NOT NULL DEFAULT 0,
    max_attempts     integer          NOT NULL,
    crashes          integer          NOT NULL DEFAULT 0,       -- leases in a row that ended without a word
    fence            bigint           NOT NULL DEFAULT 0,
    worker           text COLLATE "C",
    cancel_requested boolean          NOT NULL DEFAULT false,
    rerun_at         timestamptz,                               -- enqueued again (keep) while it ran
    rerun_payload    jsonb,
    last_error       text,
    created_at       timestamptz      NOT NULL,
    updated_at       timestamptz      NOT NULL
);

CREATE INDEX jobs_due ON jobs (queue, priority, due_at, id);
CREATE UNIQUE INDEX jobs_dedupe ON jobs (dedupe_key) WHERE dedupe_key IS NOT NULL;
CREATE INDEX jobs_worker ON jobs (worker) WHERE worker IS NOT NULL;

CREATE TABLE job_history (
    id             text COLLATE "C" PRIMARY KEY,
    queue          text             NOT NULL,
    priority       integer          NOT NULL,
    kind           text             NOT NULL,
    status         text             NOT NULL,                   -- done | failed | canceled
    run_at         timestamptz      NOT NULL,
    payload        jsonb            NOT NULL,
    dedupe_key     text,
    participant_id text COLLATE "C",
    attempt        integer          NOT NULL,
    max_attempts   integer          NOT NULL,
    worker         text COLLATE "C",
    last_error     text,
    created_at     timestamptz      NOT NULL,
    finished_at    timestamptz      NOT NULL
);

CREATE INDEX job_history_finished ON job_history (status, finished_at);

CREATE TABLE job_errors (
    job_id  text COLLATE "C" NOT NULL,
    attempt integer          NOT NULL,
    at      timestamptz      NOT NULL,
    type    text             NOT NULL,
    message text             NOT NULL,
    worker  text COLLATE "C"
);

CREATE INDEX job_errors_job ON job_errors (job_id, at);

-- ---------------------------------------------------------------------------------------------- lanes

-- A lane is a strictly ordered queue with one holder at a time. Its row stays when it is empty: it keeps the
-- pace, and the last seq given.
CREATE TABLE lanes (
    kind     text             NOT NULL,                         -- mailbox | outbox
    key      text COLLATE "C" NOT NULL,                         -- mailbox: participant; outbox: participant/channel/class
    priority integer          NOT NULL,                         -- 0: mailboxes and replies; 1: broadcasts
    due_at   timestamptz,                                       -- NULL: nothing in it; the lease's end while it is held
    pace_at  timestamptz      NOT NULL DEFAULT 'epoch',         -- never due before this
    seq      bigint           NOT NULL DEFAULT 0,               -- the last one given to an item
    leased   boolean          NOT NULL DEFAULT false,
    crashes  integer          NOT NULL DEFAULT 0,               -- leases in a row that ended without a word
    fence    bigint           NOT NULL DEFAULT 0,
    worker   text COLLATE "C",
    PRIMARY KEY (kind, key)
);

CREATE INDEX lanes_due ON lanes (kind, priority, due_at, key) WHERE due_at IS NOT NULL;
CREATE INDEX lanes_worker ON lanes (worker) WHERE worker IS NOT NULL;

CREATE TABLE mailbox_events (
    id             text COLLATE "C" PRIMARY KEY,
    participant_id text COLLATE "C" NOT NULL,
    seq            bigint,                                      -- place in the mailbox; NULL: aside
    kind           text             NOT NULL,
    payload        jsonb            NOT NULL,
    job_id         text COLLATE "C",                            -- of the timer that fired, or that recovery found lost
    dedupe_key     text,                                        -- a timer's key stays taken until its event is handled
    attempt        integer          NOT NULL DEFAULT 0,
    max_attempts   integer          NOT NULL,
    blocked        interval         NOT NULL DEFAULT '0',       -- for which it has held up its mailbox
    last_error     text,
    created_at     timestamptz      NOT NULL
);

CREATE UNIQUE INDEX mailbox_events_order ON mailbox_events (participant_id, seq) WHERE seq IS NOT NULL;
CREATE INDEX mailbox_events_aside ON mailbox_events (participant_id, id) WHERE seq IS NULL;
CREATE INDEX mailbox_events_dedupe ON mailbox_events (dedupe_key) WHERE dedupe_key IS NOT NULL;
CREATE INDEX mailbox_events_job ON mailbox_events (job_id) WHERE job_id IS NOT NULL;

-- ---------------------------------------------------------------------------------------------- outbound

CREATE TABLE outbox_messages (
    id                  text COLLATE "C" PRIMARY KEY,
    participant_id      text COLLATE "C" NOT NULL,
    channel             text             NOT NULL,
    recipient           text             NOT NULL,
    recipient_kind      text             NOT NULL,              -- phone | user_id
    class               text             NOT NULL,              -- reply | broadcast
    lane_key            text COLLATE "C" NOT NULL,
    seq                 bigint,                                 -- place in its lane; NULL: not in it
    not_before          timestamptz,                            -- enters the lane's tail then; NULL while it is in
    kind                text             NOT NULL,              -- text
    body                jsonb            NOT NULL,
    status              text             NOT NULL,
    attempts            integer          NOT NULL DEFAULT 0,    -- times marked SENDING
    uncounted           integer          NOT NULL DEFAULT 0,    -- of these, not counted against max_attempts
    max_attempts        integer          NOT NULL,
    dedupe_key          text,                                   -- holds 30 days, whatever the status
    flow_type           text COLLATE "C",                       -- the flow that waits for its `sent` or `failed`
    expires_at          timestamptz,
    in_doubt_policy     text,                                   -- resend | drop | hold; NULL: as configured
    doubt_from          timestamptz,                            -- when the request surely had ended
    doubt_until         timestamptz,                            -- when the policy decides
    provider_message_id text,
    last_error          text,
    created_at          timestamptz      NOT NULL,
    updated_at          timestamptz      NOT NULL,
    sent_at             timestamptz,
    delivered_at        timestamptz,
    read_at             timestamptz,
    failed_at           timestamptz
);

CREATE UNIQUE INDEX outbox_messages_order ON outbox_messages (lane_key, seq) WHERE seq IS NOT NULL;
CREATE UNIQUE INDEX outbox_messages_dedupe ON outbox_messages (dedupe_key) WHERE dedupe_key IS NOT NULL;
CREATE INDEX outbox_messages_not_before ON outbox_messages (not_before) WHERE not_before IS NOT NULL;
CREATE INDEX outbox_messages_in_doubt ON outbox_messages (doubt_until) WHERE status = 'in_doubt';

CREATE TABLE outbox_attempts (
    message_id  text COLLATE "C" NOT NULL,
    n           integer          NOT NULL,
    fence       bigint           NOT NULL,
    channel     text             NOT NULL,
    provider_id text,
    state       text             NOT NULL,                      -- unsent | sending | in_doubt | dropped | sent | failed | delivered | read
    error       text,
    started_at  timestamptz      NOT NULL,
    ended_at    timestamptz,
    PRIMARY KEY (message_id, n)
);

CREATE UNIQUE INDEX outbox_attempts_provider ON outbox_attempts (channel, provider_id) WHERE provider_id IS NOT NULL;

CREATE TABLE receipts (
    id                  text COLLATE "C" PRIMARY KEY,
    channel             text             NOT NULL,
    message_id          text COLLATE "C",                       -- NULL: about no message we know (yet)
    attempt             integer,
    provider_message_id text             NOT NULL,
    status              text             NOT NULL,
    error               text,
    provider_time       timestamptz,
    received_at         timestamptz      NOT NULL,
    raw                 bytea            NOT NULL
);

CREATE INDEX receipts_message ON receipts (message_id) WHERE message_id IS NOT NULL;

-- Statuses about messages whose provider id we do not know yet; the commit that learns it joins them.
CREATE TABLE parked_updates (
    channel     text             NOT NULL,
    provider_id text             NOT NULL,
    receipt_id  text COLLATE "C" NOT NULL,
    received_at timestamptz      NOT NULL,
    PRIMARY KEY (channel, provider_id, receipt_id)
);

CREATE TABLE channels (
    name         text        PRIMARY KEY,
    paused_until timestamptz NOT NULL,
    reason       text        NOT NULL
);

-- ---------------------------------------------------------------------------------------------- inbound

CREATE TABLE inbound_dedup (
    channel     text        NOT NULL,
    number_id   text        NOT NULL,
    kind        text        NOT NULL,                           -- message | status | other
    provider_id text        NOT NULL,
    status      text        NOT NULL,                           -- of a delivery status, else ''
    seen_at     timestamptz NOT NULL,
    PRIMARY KEY (channel, number_id, kind, provider_id, status)
);

CREATE INDEX inbound_dedup_seen ON inbound_dedup (seen_at);

CREATE TABLE responses (
    id             text COLLATE "C" PRIMARY KEY,
    participant_id text COLLATE "C",                            -- NULL: from nobody we know
    channel        text             NOT NULL,
    number_id      text             NOT NULL,
    message_id     text COLLATE "C" NOT NULL,                   -- the provider's
    sender         text             NOT NULL,
    type           text             NOT NULL,
    text           text             NOT NULL,
    raw            bytea            NOT NULL,                   -- the update as JSON, nothing replaced
    provider_time  timestamptz,
    received_at    timestamptz      NOT NULL,
    processed_at   timestamptz                                  -- when a flow had handled it
);

CREATE INDEX responses_participant ON responses (participant_id, id);

-- ---------------------------------------------------------------------------------------------- recovery

CREATE TABLE recovery_reports (
    id         text COLLATE "C" PRIMARY KEY,
    started_at timestamptz      NOT NULL,
    report     jsonb            NOT NULL
);

-- ---------------------------------------------------------------------------------------------- upkeep

-- Room in the pages, so that what is updated in place needs no new index entries; and rows that live for seconds are
-- cleared away while the indexes that are searched all the time are still small.
ALTER TABLE flow_states SET (fillfactor = 80);
ALTER TABLE mailbox_events SET (
    fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000
);
ALTER TABLE jobs SET (
    fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.05
);
ALTER TABLE lanes SET (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000
);
ALTER TABLE outbox_messages SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE outbox_attempts SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
