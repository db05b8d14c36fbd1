#!/bin/sh
# The demo application on an HTTP socket and a uwsgi socket, and nginx in front of the latter when it is installed.
# Called by `make run`; VENV, HTTP_PORT, UWSGI_PORT and NGINX_PORT come from there. Ctrl-C ends all of it, in order:
# running requests may finish; a second one does not wait for them.
set -eu
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/usr/local/sbin

# The server removes it when it accepts. Whether its port answers says less: another server may have it.
mkdir -p .run
starting=.run/starting.$$
: >"$starting"

# In sessions of their own: the terminal sends Ctrl-C to all of its group, and with what `stop` sends it would be two.
setsid "$VENV/bin/corelet" --asyncio 100 --wsgi-file examples/demo.py --hook-accepting "unlink:$starting" \
    --http-socket "127.0.0.1:$HTTP_PORT" --socket "127.0.0.1:$UWSGI_PORT" &
server=$!
front=
stop() {
    trap 'kill "$server" 2>/dev/null || true' INT TERM HUP
    trap - EXIT
    kill "$server" 2>/dev/null || true
    while kill -0 "$server" 2>/dev/null; do wait "$server" || true; done # a signal ends the waiting, not the server
    [ -z "$front" ] || kill "$front" 2>/dev/null || true
    wait
    rm -f "$starting"
}
trap 'stop; exit 0' INT TERM HUP
trap stop EXIT

# Gone when the start failed, and then it has said why.
while [ -e "$starting" ]; do
    kill -0 "$server" 2>/dev/null || { trap - EXIT; rm -f "$starting"; exit 1; }
    sleep 0.1
done

echo
echo "  http://127.0.0.1:$HTTP_PORT/    corelet itself, over HTTP"
if command -v nginx >/dev/null; then
    setsid nginx/front.sh "$NGINX_PORT" "127.0.0.1:$UWSGI_PORT" .run/nginx &
    front=$!
    echo "  http://127.0.0.1:$NGINX_PORT/    nginx, and behind it corelet over uwsgi packets"
else
    echo "  (install nginx to see the demo behind it: apt-get install nginx-light)"
fi
echo "  127.0.0.1:$UWSGI_PORT             for an nginx of your own: include uwsgi_params; uwsgi_pass 127.0.0.1:$UWSGI_PORT;"
echo "  Ctrl-C ends it"
echo
wait "$server"
