-- Participants and messages that were erased.
CREATE TABLE tombstones (
    id        TEXT    NOT NULL PRIMARY KEY,
    erased_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What strangers wrote, by sender.
CREATE INDEX responses_strangers ON responses (sender) WHERE participant_id IS NULL;
