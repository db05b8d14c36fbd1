#!/bin/sh
# The tests need a real Redis and a real PostgreSQL: install them where that is possible without a question, else say
# what to do. nginx is nginx/need.sh's.
PATH=$PATH:/usr/sbin:/usr/local/sbin

missing() {
    command -v redis-server >/dev/null || echo redis-server
    command -v postgres >/dev/null || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || echo postgresql
}

packages=$(missing)
[ -z "$packages" ] && exit 0
if command -v apt-get >/dev/null && { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }; then
    sudo=; [ "$(id -u)" -eq 0 ] || sudo=sudo
    echo "installing for the tests:" $packages >&2
    $sudo apt-get update -qq
    # PostgreSQL: no cluster of the system's own is made. RUNLEVEL: no service starts; the tests run their own.
    $sudo mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] ||
        echo "create_main_cluster = false" | $sudo tee /etc/postgresql-common/createcluster.conf >/dev/null
    $sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install -y -qq --no-install-recommends $packages >/dev/null
    [ -z "$(missing)" ] && exit 0
fi
echo "the tests need" $(missing)". Debian, Ubuntu: sudo apt-get install" $(missing) >&2
exit 1
