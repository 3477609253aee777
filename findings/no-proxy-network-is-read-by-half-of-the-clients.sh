#!/bin/sh
# A network in NO_PROXY (10.0.0.0/8) exempts hosts for some Python libraries and is not understood by others.
# requests and httpx2 read it; urllib, aiohttp and botocore compare it with the host as text and ask the proxy.
# It matters because several of them work in one program (a hub client, an S3 client, a plain download), so that the
# same internal address is reached directly by one and through the proxy by the next. Host names work in all of them.
set -eu
uv=$(command -v uv || "$(dirname "$0")/../tools/bootstrap.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export UV_PYTHON_DOWNLOADS=never
"$uv" venv -q --python python3 "$work/venv"
"$uv" pip install -q --python "$work/venv" requests==2.34.2 httpx2==2.16.2 aiohttp==3.14.5 botocore==1.44.5

env -u no_proxy -u http_proxy -u https_proxy -u all_proxy -u HTTPS_PROXY -u ALL_PROXY -u REQUEST_METHOD \
    HTTP_PROXY=http://proxy.example:3128 NO_PROXY=.example.internal,10.0.0.0/8 "$work/venv/bin/python" - <<'PYTHON'
import platform, sys, urllib.request
import aiohttp, aiohttp.helpers, botocore, botocore.utils, httpx2, requests, requests.utils, yarl


def by_urllib(url):
    return bool(urllib.request.proxy_bypass(url.split("/")[2]))


def by_requests(url):
    return not requests.utils.get_environ_proxies(url)


def by_httpx2(url):
    client = httpx2.Client()
    return client._transport_for_url(httpx2.URL(url)) is client._transport


def by_aiohttp(url):
    try:
        aiohttp.helpers.get_env_proxy_for_url(yarl.URL(url))
    except LookupError:
        return True
    return False


def by_botocore(url):
    return not botocore.utils.get_environ_proxies(url)


readers = {
    f"urllib of Python {platform.python_version()}": by_urllib,
    f"requests {requests.__version__}": by_requests,
    f"httpx2 {httpx2.__version__}": by_httpx2,
    f"aiohttp {aiohttp.__version__}": by_aiohttp,
    f"botocore {botocore.__version__}": by_botocore,
}
seen = {}
for name, is_direct in readers.items():
    seen[name.split()[0]] = is_direct("http://10.1.2.3/"), is_direct("http://files.example.internal/")
    print(name, *("direct" if direct else "PROXIED" for direct in seen[name.split()[0]]))
if not all(by_name for _, by_name in seen.values()):
    sys.exit("CHANGED: a suffix is not read by all of them")
if {name for name, (by_network, _) in seen.items() if by_network} != {"requests", "httpx2"}:
    sys.exit("CHANGED: other libraries read networks now")
PYTHON
