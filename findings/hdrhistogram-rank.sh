#!/usr/bin/env bash
# hdrhistogram 0.10.3 (PyPI): get_value_at_percentile rounds the rank to the nearest one, where nearest rank
# (and the Java original) take the smallest value that at least p % of all are at or below.
# Seen: p10 of 1..11 is 1 (rank 1.1 rounded to 1; nearest rank is 2), p95 is 10 (10.45 to 10; nearest rank 11).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
uv venv --quiet "$dir/venv"
uv pip install --quiet --python "$dir/venv/bin/python" "hdrhistogram==0.10.3"
seen=$("$dir/venv/bin/python" - <<'PY'
from hdrh.histogram import HdrHistogram

histogram = HdrHistogram(1, 3_600_000_000, 3)
for value in range(1, 12):
    histogram.record_value(value)
print(histogram.get_value_at_percentile(10), histogram.get_value_at_percentile(95))
PY
)
echo "p10 and p95 of 1..11: $seen"
[ "$seen" = "1 10" ]
