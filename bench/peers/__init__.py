"""Job queues of others, doing the same on the same server; they run on asyncio or in threads, and so does this."""
