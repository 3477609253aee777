#!/bin/sh
# huggingface_hub says of a file that the hub refuses with 403 that the connection is the trouble. A token that may list a
# repository and not read its files (a gated repository, or a token of too small a scope) meets this: the listing answers 200,
# the file 403 with the hub's own words, and what is raised is LocalEntryNotFoundError, which asks the reader to check the
# connection. The answer and its status are in the exception's cause alone. It matters because such a job looks like one to
# be tried again later, and no second try helps.
set -eu
uv=$(command -v uv || "$(dirname "$0")/../tools/bootstrap.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export UV_PYTHON_DOWNLOADS=never
"$uv" venv -q --python python3 "$work/venv"
"$uv" pip install -q --python "$work/venv" huggingface-hub==2.4.0

cat >"$work/see.py" <<'PYTHON'
import json, os, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0" * 40
WORDS = "Access to model some/model is restricted and you are not in the authorized list"

class Hub(BaseHTTPRequestHandler):
    def answer(self):
        listing = "/api/models/" in self.path
        body = json.dumps({"id": "some/model", "sha": COMMIT, "siblings": [{"rfilename": "config.json"}]})
        self.send_response(200 if listing else 403)
        if not listing:
            self.send_header("X-Error-Message", WORDS)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body.encode())

    do_GET = do_HEAD = answer

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
import huggingface_hub

print("huggingface_hub", huggingface_hub.__version__)
print("listed:", [each.rfilename for each in huggingface_hub.HfApi().model_info("some/model").siblings])
try:
    huggingface_hub.hf_hub_download("some/model", "config.json", cache_dir=sys.argv[1])
except Exception as error:
    cause = error.__cause__
    print("raised:", type(error).__name__)
    print("says:", str(error).splitlines()[0])
    print("cause:", type(cause).__name__, getattr(getattr(cause, "response", None), "status_code", None))
    has_words = WORDS in str(error)
    same = type(error).__name__ == "LocalEntryNotFoundError" and "connection" in str(error) and not has_words
    sys.exit(0 if same and cause.response.status_code == 403 else print("CHANGED: the refusal is said") or 1)
sys.exit("CHANGED: nothing was raised")
PYTHON
"$work/venv/bin/python" "$work/see.py" "$work/cache"
