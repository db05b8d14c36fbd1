#!/bin/sh
# The tests need a real PostgreSQL: install it where that is possible without a question, else say what to do.
there() { command -v postgres >/dev/null || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; }
there && exit 0

if command -v apt-get >/dev/null && { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }; then
    sudo=; [ "$(id -u)" -eq 0 ] || sudo=sudo
    echo "installing PostgreSQL for the tests" >&2
    $sudo apt-get update -qq
    # No cluster of the system's own is made, and no service starts: the tests run their own.
    $sudo mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] ||
        echo "create_main_cluster = false" | $sudo tee /etc/postgresql-common/createcluster.conf >/dev/null
    $sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends postgresql >/dev/null
    there && exit 0
fi
echo "the tests need a real PostgreSQL. Debian, Ubuntu: sudo apt-get install postgresql" >&2
exit 1
