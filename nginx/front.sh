#!/bin/sh
# Start nginx in front of a uwsgi socket, in the foreground: fill in nginx.conf.template and become nginx.
#     nginx/front.sh PORT UWSGI_ADDRESS PREFIX
#     nginx/front.sh 8080 127.0.0.1:3031 /tmp/corelet-nginx
#     nginx/front.sh 8080 unix:/run/app.sock .run/nginx
# Everything nginx writes goes below PREFIX, which is made if need be. SIGTERM or Ctrl-C ends it.
set -eu

if [ $# -ne 3 ]; then
    sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
port=$1 address=$2

# Debian keeps nginx out of a user's PATH.
PATH=$PATH:/usr/sbin:/usr/local/sbin
if ! command -v nginx >/dev/null; then
    echo "nginx is not installed; on Debian or Ubuntu: apt-get install nginx" >&2
    exit 127
fi

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$3"
prefix=$(cd "$3" && pwd)

# nginx drops root's rights to an account that could not write below PREFIX; for anybody else "user" is a warning.
if [ "$(id -u)" -eq 0 ]; then user="user root;"; else user="# runs as the invoking user"; fi

sed -e "s|@USER@|$user|" -e "s|@PORT@|$port|" -e "s|@UWSGI@|$address|" -e "s|@HERE@|$here|" \
    "$here/nginx.conf.template" >"$prefix/nginx.conf"
# -e: otherwise nginx opens the log path it was compiled with before it reads the configuration, and complains.
exec nginx -e stderr -p "$prefix" -c "$prefix/nginx.conf"
