"""Where asyncio and greenlet meet: cores, the poller, connections, listeners, and the worker that holds them."""
