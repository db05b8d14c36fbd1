"""PEP 3333, pure: environ, input, reply and the call of the application. Knows no loop, no greenlet and no socket."""
