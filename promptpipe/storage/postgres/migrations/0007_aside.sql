-- Events that were set aside, listed and counted among millions that wait.
CREATE INDEX mailbox_events_all_aside ON mailbox_events (id) WHERE seq IS NULL;
