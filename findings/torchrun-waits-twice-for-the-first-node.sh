#!/bin/sh
# With `--rdzv-conf=timeout=T`, torchrun waits more than twice T for the first node of a job, and then says that it waited T.
# Its store is connected to twice, with the whole timeout each time and a pause of up to some tens of seconds between. It
# matters because a job gives up later than was asked for, while its other GPUs wait: a limit of half an hour is over an hour.
# Here nobody listens at the address of the first node. Needs 2 GB of disk and two minutes.
set -eu
uv=$(command -v uv || "$(dirname "$0")/../tools/bootstrap.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export UV_PYTHON_DOWNLOADS=never
"$uv" venv -q --python python3 "$work/venv"
"$uv" pip install -q --python "$work/venv" torch==2.15.0 numpy==2.4.6
echo 'print("trains")' >"$work/worker.py"

"$work/venv/bin/python" - "$work/worker.py" <<'PYTHON'
import re, socket, subprocess, sys
import torch

TIMEOUT = 12
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
argv = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--node-rank=1"]
argv += ["--master-addr=127.0.0.1", f"--master-port={port}", f"--rdzv-conf=timeout={TIMEOUT}", sys.argv[1]]
ended = subprocess.run(argv, capture_output=True, text=True)
print("torch", torch.__version__)
tries = re.findall(r"\[[EW]\d+ (\d+):(\d+):([\d.]+) .*TCPStore.*\(try=(\d), timeout=(\d+)ms", ended.stderr)
if ended.returncode != 1 or [each[3:] for each in tries] != [("0", "12000"), ("1", "12000")]:
    sys.exit(f"CHANGED: not two tries of the whole timeout: {ended.stderr[-1500:]}")
first, last = (int(hour) * 3600 + int(minute) * 60 + float(second) for hour, minute, second, *_ in tries)
print(f"timeout={TIMEOUT}: the second try failed {(last - first) % 86400:.0f} s after the first had failed after {TIMEOUT} s")
print(re.findall(r"^.*DistNetworkError: (.*)$", ended.stderr, re.MULTILINE)[-1].replace(str(port), "PORT"))
PYTHON
