"""What every method of the store does, each in one transaction, written once for all back ends.

A back end brings its `Database`, and its own SQL under the same statement names. The order in which locks are taken is
the same everywhere: `inbound_dedup` aside, participants, then `lanes` (mailboxes before outboxes), `flow_states`,
`jobs`, `outbox_messages` (ADR 0015).
"""
