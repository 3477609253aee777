#!/bin/sh
# huggingface_hub tries a 503 again when it lists the files of a repository, but not when it asks for the revision
# before that, nor when it downloads a file after it. snapshot_download does all three, so a server that is busy for a
# moment is invisible in the middle step and ends the download in the other two.
# It matters because a mirror or a proxy that answers 503 now and then breaks downloads of many files, while small
# tests pass: whoever relies on it needs retries of their own.
set -eu
uv=$(command -v uv || "$(dirname "$0")/../tools/bootstrap.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export UV_PYTHON_DOWNLOADS=never
"$uv" venv -q --python python3 "$work/venv"
"$uv" pip install -q --python "$work/venv" huggingface-hub==2.4.0

HF_HOME="$work/home" HF_HUB_DISABLE_XET=1 HF_HUB_DISABLE_PROGRESS_BARS=1 HF_HUB_DISABLE_TELEMETRY=1 \
    "$work/venv/bin/python" - "$work" <<'PYTHON'
import collections, http.server, json, os, sys, threading

COMMIT = "a" * 40
asked = collections.Counter()
busy = ""


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub with one repository of one file; a GET of a path that contains `busy` answers 503."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        if "/agent" in self.path:
            return self.answer(404, b"")
        is_busy = busy and busy in self.path and self.command == "GET"
        if is_busy:
            asked[busy] += 1
            return self.answer(503, b"busy")
        if "/resolve/" in self.path:
            return self.answer(200, b"{}", {"ETag": '"e1"', "X-Repo-Commit": COMMIT})
        files = [{"rfilename": "config.json", "type": "file", "path": "config.json", "size": 2, "oid": "b" * 40}]
        body = files if "/tree/" in self.path else {"id": "some/model", "sha": COMMIT, "siblings": files}
        self.answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def answer(self, status, body, headers={}):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
import huggingface_hub

print("huggingface_hub", huggingface_hub.__version__)
for what, busy, tries in (
    ("nothing", "", 0), ("the revision", "/revision/", 1), ("the listing", "/tree/", 6), ("a file", "/resolve/", 1)
):
    try:
        huggingface_hub.snapshot_download("some/model", cache_dir=f"{sys.argv[1]}/{what}")
        ended = "downloaded"
    except Exception as error:
        ended = type(error).__name__
    print(f"503 from {what}: {asked[busy]} requests, {ended}")
    if asked[busy] != tries or (ended == "downloaded") != (what == "nothing"):
        sys.exit(f"CHANGED: {tries} requests were seen before")
PYTHON
