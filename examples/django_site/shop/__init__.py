"""A small Django site under corelet: the ORM, sessions, the admin, an async view, and transactions that wait."""
