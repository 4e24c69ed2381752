-- Indexes for lists of one participant's things.

CREATE INDEX jobs_participant ON jobs (participant_id, id) WHERE participant_id IS NOT NULL;
CREATE INDEX job_history_participant ON job_history (participant_id, id) WHERE participant_id IS NOT NULL;
CREATE INDEX outbox_messages_participant ON outbox_messages (participant_id, id);
