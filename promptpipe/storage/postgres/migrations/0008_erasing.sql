-- Participants and messages that were erased.
CREATE TABLE tombstones (
    id        text COLLATE "C" PRIMARY KEY,
    erased_at timestamptz      NOT NULL
);

-- What strangers wrote, by sender.
CREATE INDEX responses_strangers ON responses (sender) WHERE participant_id IS NULL;
