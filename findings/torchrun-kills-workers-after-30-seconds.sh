#!/bin/sh
# torchrun passes SIGTERM on to its workers and kills them 30 seconds later, however long the caller is ready to wait.
# Here the caller waits for as long as it takes, as a kubelet does with terminationGracePeriodSeconds: 120. A worker
# that needs 40 seconds to write a checkpoint is still killed in the middle of it. It matters because the checkpoint
# of a preempted job is lost, although the pod had the time. The option --shutdown-timeout changes the 30 seconds.
set -eu
uv=$(command -v uv || "$(dirname "$0")/../tools/bootstrap.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export UV_PYTHON_DOWNLOADS=never
"$uv" venv -q --python python3 "$work/venv"
"$uv" pip install -q --python "$work/venv" torch==2.15.0 numpy==2.4.6

cat >"$work/worker.py" <<'PYTHON'
import signal, sys, time

def write_checkpoint(*_):
    started = time.monotonic()
    while time.monotonic() - started < 40:
        time.sleep(1)
        print(f"writing for {time.monotonic() - started:.0f} s", flush=True)
    print("checkpoint written", flush=True)
    sys.exit(0)

signal.signal(signal.SIGTERM, write_checkpoint)
print("training", flush=True)
while True:
    time.sleep(0.1)
PYTHON

run() { # run NAME [OPTION...]: start torchrun, send SIGTERM once the worker trains, wait for the end
    log="$work/$1.log"
    shift
    "$work/venv/bin/python" -m torch.distributed.run --standalone --nproc-per-node=1 "$@" "$work/worker.py" >"$log" 2>&1 &
    pid=$!
    until grep -q training "$log"; do
        kill -0 "$pid" || { cat "$log"; exit 1; }
        sleep 1
    done
    kill -TERM "$pid"
    wait "$pid" || true
    grep -E 'writing|written' "$log" | tail -1
}

"$work/venv/bin/python" -c 'import torch; print("torch", torch.__version__)'
usual=$(run usual)
echo "usual: the last line of the worker is: $usual"
longer=$(run longer --shutdown-timeout=90)
echo "with --shutdown-timeout=90: $longer"
case "$usual" in "writing for 2"[89]* | "writing for 3"[01]*) ;; *) echo "CHANGED: not killed after 30 s" && exit 1 ;; esac
[ "$longer" = "checkpoint written" ] || { echo "CHANGED: --shutdown-timeout does not help"; exit 1; }
