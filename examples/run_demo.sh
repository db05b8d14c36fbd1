#!/bin/sh
# The demo application on an HTTP socket and a uwsgi socket, and nginx in front of the latter when it is installed.
# Called by `make run`; VENV, HTTP_PORT, UWSGI_PORT and NGINX_PORT come from there. Ctrl-C ends all of it.
set -eu
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/usr/local/sbin

"$VENV/bin/corelet" --asyncio 100 --wsgi-file examples/demo.py \
    --http-socket "127.0.0.1:$HTTP_PORT" --socket "127.0.0.1:$UWSGI_PORT" &
server=$!
front=
stop() {
    trap - INT TERM EXIT
    [ -z "$front" ] || kill "$front" 2>/dev/null || true
    kill "$server" 2>/dev/null || true
    wait
}
trap stop INT TERM EXIT

# Ready when it accepts; gone when the start failed, and then it has said why.
until "$VENV/bin/python" -c "import socket; socket.create_connection(('127.0.0.1', $HTTP_PORT), 1)" 2>/dev/null; do
    kill -0 "$server" 2>/dev/null || { trap - EXIT; exit 1; }
    sleep 0.1
done

echo
echo "  http://127.0.0.1:$HTTP_PORT/    corelet itself, over HTTP"
if command -v nginx >/dev/null; then
    nginx/front.sh "$NGINX_PORT" "127.0.0.1:$UWSGI_PORT" .run/nginx &
    front=$!
    echo "  http://127.0.0.1:$NGINX_PORT/    nginx, and behind it corelet over uwsgi packets"
else
    echo "  (install nginx to see the demo behind it: apt-get install nginx-light)"
fi
echo "  127.0.0.1:$UWSGI_PORT             for an nginx of your own: include uwsgi_params; uwsgi_pass 127.0.0.1:$UWSGI_PORT;"
echo "  Ctrl-C ends it"
echo
wait "$server"
