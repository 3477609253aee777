#!/bin/sh
# A slice that safetensors reads of one file, with the same words, is another one for framework="numpy" than for framework="pt".
# With "pt", rows behind the last one are left out, a begin behind the end gives nothing, and negative rows count from the
# end, as in numpy and PyTorch themselves. With "numpy" each of these is an error: SafetensorError, OverflowError or
# SystemError, and so is an empty slice at the very end. It matters where a reader of shares was tried with one framework
# only: the last share of a tensor whose rows can't be divided evenly. Needs 2 GB of disk and two minutes.
set -eu
uv=$(command -v uv || "$(dirname "$0")/../tools/bootstrap.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export UV_PYTHON_DOWNLOADS=never
"$uv" venv -q --python python3 "$work/venv"
"$uv" pip install -q --python "$work/venv" safetensors==0.8.0 numpy==2.4.6 torch==2.15.0

"$work/venv/bin/python" - "$work/rows.safetensors" <<'PYTHON'
import sys
import numpy, safetensors, torch
from safetensors.numpy import save_file

ROWS = numpy.arange(12, dtype="float32").reshape(4, 3)
SLICES = {"rows[2:9]": slice(2, 9), "rows[4:4]": slice(4, 4), "rows[-2:]": slice(-2, None), "rows[3:1]": slice(3, 1)}
save_file({"rows": ROWS}, sys.argv[1])


def read(framework, rows):
    with safetensors.safe_open(sys.argv[1], framework=framework) as file:
        try:
            return numpy.asarray(file.get_slice("rows")[rows]).tolist()
        except Exception as error:
            return type(error).__name__


print("safetensors", safetensors.__version__, "numpy", numpy.__version__, "torch", torch.__version__)
for name, rows in SLICES.items():
    by_numpy, by_torch = read("numpy", rows), read("pt", rows)
    print(f"{name}: numpy itself {ROWS[rows].tolist()}, framework=pt {by_torch}, framework=numpy {by_numpy}")
    if by_torch != ROWS[rows].tolist():
        sys.exit("CHANGED: framework=pt is no slice as numpy's")
    if by_numpy not in ("SafetensorError", "OverflowError", "SystemError"):
        sys.exit("CHANGED: framework=numpy reads this slice")
PYTHON
