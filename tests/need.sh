#!/bin/sh
# The tests need a real Redis: install it where that is possible without a question, else say what to do.
PATH=$PATH:/usr/sbin:/usr/local/sbin
command -v redis-server >/dev/null && exit 0

if command -v apt-get >/dev/null && { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }; then
    sudo=; [ "$(id -u)" -eq 0 ] || sudo=sudo
    echo "installing redis-server for the tests" >&2
    $sudo apt-get update -qq
    # A policy that lets no service start: the tests run their own.
    $sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends redis-server >/dev/null
    command -v redis-server >/dev/null && exit 0
fi
echo "the tests need a real Redis. Debian, Ubuntu: sudo apt-get install redis-server" >&2
exit 1
