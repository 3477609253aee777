#!/bin/sh
# A chat data set changes its meaning when it is converted from JSON lines to Parquet.
# Parquet has one struct for all messages, so a key that one message has exists in all of them, with the value null.
# A chat template that asks `'tool_calls' in message` or `message.name is defined` then takes the other branch.
# It matters because the same rows are trained on as another text, in silence, and a server never writes that text.
set -eu
uv=$(command -v uv || "$(dirname "$0")/../tools/bootstrap.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export UV_PYTHON_DOWNLOADS=never
"$uv" venv -q --python python3 "$work/venv"
"$uv" pip install -q --python "$work/venv" pyarrow==26.0.1 jinja2==3.1.6

"$work/venv/bin/python" - "$work" <<'PYTHON'
import json, sys
import jinja2, pyarrow, pyarrow.parquet

rows = [
    {"messages": [{"role": "user", "content": "Which time is it?"},
                  {"role": "assistant", "content": "", "tool_calls": [{"name": "clock"}]}]},
    {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good morning"}]},
]
template = jinja2.Template(
    "{% for message in messages %}<{{ message.role }}>"
    "{% if message.tool_calls is defined %}CALLS {{ message.tool_calls | tojson }}{% else %}{{ message.content }}{% endif %}"
    "{% endfor %}"
)
lines = f"{sys.argv[1]}/rows.jsonl"
with open(lines, "w") as file:
    file.writelines(json.dumps(row) + "\n" for row in rows)
pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), f"{sys.argv[1]}/rows.parquet")

from_lines = template.render(**[json.loads(line) for line in open(lines)][1])
from_parquet = template.render(**pyarrow.parquet.read_table(f"{sys.argv[1]}/rows.parquet").to_pylist()[1])
print("pyarrow", pyarrow.__version__, "jinja2", jinja2.__version__)
print("second row from JSON lines:", from_lines)
print("second row from Parquet:   ", from_parquet)
if from_lines != "<user>Hello<assistant>Good morning" or from_parquet != "<user>CALLS null<assistant>CALLS null":
    sys.exit("CHANGED: both files give the same text, or another one")
PYTHON
