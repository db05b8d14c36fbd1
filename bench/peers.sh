#!/bin/sh
# Make the environment with the peers that bench/run.py compares corelet with:
#     bench/peers.sh [FOLDER]          default .venv-bench beside pyproject.toml; PYTHON=… chooses the interpreter
# corelet itself goes into it as well (editable), so that everybody runs on the same interpreter. It has to be CPython
# 3.11: uWSGI's asyncio engine does not start on a later one. uWSGI is built from source, with its asyncio profile and
# with greenlet's headers, so this needs a C compiler and Python's headers (on Debian: gcc, python3-dev). Running it again
# brings the environment up to date.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-$root/.venv-bench}
python=${PYTHON:-python3.11}
uwsgi_version=2.0.31

if ! command -v "$python" >/dev/null; then
    echo "$python is not there. Install CPython 3.11, or name one: PYTHON=/path/to/python3.11 bench/peers.sh" >&2
    exit 1
fi
if [ "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" != 3.11 ]; then
    echo "$python is $("$python" --version); uWSGI's asyncio engine needs CPython 3.11" >&2
    exit 1
fi

"$python" -m venv "$folder"
"$folder/bin/pip" install --quiet --upgrade setuptools wheel greenlet
"$folder/bin/pip" install --quiet --editable "$root[bench]"

if [ "$("$folder/bin/uwsgi" --version 2>/dev/null || true)" != "$uwsgi_version" ]; then
    # The plugin includes <greenlet/greenlet.h>; the wheel of greenlet has it inside the package. No cache: a uWSGI built
    # without the profile would come out of it. No isolation: the build must see greenlet.
    headers=$("$folder/bin/python" -c 'import os, greenlet; print(os.path.dirname(greenlet.__file__))')
    CFLAGS="-I$headers -I$(dirname "$headers")" UWSGI_PROFILE=asyncio "$folder/bin/pip" install --quiet \
        --no-cache-dir --no-binary uwsgi --no-build-isolation "uwsgi==$uwsgi_version"
fi

if ! "$folder/bin/uwsgi" --help | grep -q -- --asyncio; then
    echo "uWSGI was built without its asyncio engine" >&2
    exit 1
fi
for tool in nginx wrk; do
    PATH=$PATH:/usr/sbin command -v "$tool" >/dev/null || echo "$tool is missing too; on Debian: apt-get install $tool" >&2
done
echo "The peers are in $folder"
