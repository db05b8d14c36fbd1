"""The caches behind `uwsgi.cache_*`: what a store offers, and the two that there are, one machine's and Redis."""
