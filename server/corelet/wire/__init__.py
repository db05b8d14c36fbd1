"""Bytes <-> Request, sans-I/O: uwsgi variables, HTTP/1 heads, chunked bodies. Knows no socket, no time, no WSGI."""
