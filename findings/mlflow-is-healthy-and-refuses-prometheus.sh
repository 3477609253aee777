#!/bin/sh
# MLflow 3 answers its health check to everyone and refuses Prometheus, if it is told its own host names.
# With --allowed-hosts (or MLFLOW_SERVER_ALLOWED_HOSTS) the Host header of a request must be in the list, with its port.
# Prometheus scrapes a pod by its IP address, so /metrics is 403 for ever, and so is a client that leaves the port out.
# /health is exempt. It matters because the pod is ready, probes are green, and the dashboards stay empty.
set -eu
uv=$(command -v uv || "$(dirname "$0")/../tools/bootstrap.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export UV_PYTHON_DOWNLOADS=never
"$uv" venv -q --python python3 "$work/venv"
"$uv" pip install -q --python "$work/venv" mlflow==3.15.1 prometheus-flask-exporter==0.23.2

cd "$work"
"$work/venv/bin/mlflow" --version
port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$work/venv/bin/mlflow" server --host 127.0.0.1 --port "$port" --workers 1 --backend-store-uri "sqlite:///$work/mlflow.db" \
    --expose-prometheus "$work/metrics" --allowed-hosts mlflow.tracking:5000 >"$work/log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -rf "$work"' EXIT

"$work/venv/bin/python" - "$port" <<'PYTHON'
import http.client, sys, time


def status(host, path):
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=10)
    connection.request("GET", path, headers={"Host": host})
    return connection.getresponse().status


for _ in range(120):
    try:
        status("mlflow.tracking:5000", "/health")
        break
    except OSError:
        time.sleep(1)
seen = {}
for host in ("mlflow.tracking:5000", "mlflow.tracking", "10.0.0.7:5000"):
    seen[host] = status(host, "/health"), status(host, "/metrics")
    print(f"Host {host}: /health {seen[host][0]}, /metrics {seen[host][1]}")
if seen != {"mlflow.tracking:5000": (200, 200), "mlflow.tracking": (200, 403), "10.0.0.7:5000": (200, 403)}:
    sys.exit("CHANGED: other answers")
PYTHON
