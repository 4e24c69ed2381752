-- What is done is pruned in the order of its id, which holds the time when the job was made: most of all that ends needs
-- no entry in any other index.
DROP INDEX job_history_finished;
CREATE INDEX job_history_ended ON job_history (status, finished_at) WHERE status <> 'done';
