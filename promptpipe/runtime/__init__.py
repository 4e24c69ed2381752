"""The long-lived parts: what claims work, runs it, and is drained."""
