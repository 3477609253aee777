#!/bin/sh
# Puts the pinned uv into the cache and prints its path. Needs Python 3.11 or later and nothing else:
# where Debian's Python comes without venv, root gets python3-venv from apt and anyone else is told to.
set -eu
version=0.13.8
home="${XDG_CACHE_HOME:-$HOME/.cache}/tuneyard/uv-$version"
if [ ! -x "$home/bin/uv" ]; then
    command -v python3 >/dev/null || { echo "tuneyard: python3 (3.11 or later) is missing" >&2; exit 2; }
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "tuneyard: python3 is older than 3.11" >&2; exit 2; }
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        [ "$(id -u)" = 0 ] || { echo "tuneyard: python3-venv is missing; run: sudo apt-get install python3-venv" >&2; exit 2; }
        echo "tuneyard: installing python3-venv (apt)" >&2
        { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends python3-venv; } >&2
    fi
    echo "tuneyard: installing uv $version" >&2
    partial="$home.$$"
    python3 -m venv "$partial"
    "$partial/bin/pip" install --quiet --disable-pip-version-check "uv==$version" >&2
    rm -rf "$home"
    mv "$partial" "$home"
fi
echo "$home/bin/uv"
