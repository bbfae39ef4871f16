#!/bin/sh
# curl at the gateway: only the host is not the provider's. Arguments: GATEWAY KEY FILE.
set -eu
gateway=$1 key=$2 path=$3
call() { curl -sS --fail-with-body -H "Authorization: Bearer $key" "$@"; }
field() { python3 -c "import json, sys; print(json.load(sys.stdin)['$1'])"; }

file=$(call "$gateway/v1/files" -F purpose=batch -F "file=@$path" | field id)
batch=$(call "$gateway/v1/batches" -H "Content-Type: application/json" -d "{\"input_file_id\": \"$file\",
  \"endpoint\": \"/v1/chat/completions\", \"completion_window\": \"24h\"}" | field id)
while status=$(call "$gateway/v1/batches/$batch" | field status); do
  case $status in completed | failed | expired | cancelled) break ;; esac
  sleep 1
done
echo "$status"
[ "$status" != failed ] || call "$gateway/v1/batches/$batch" | field errors >&2
for result in output_file_id error_file_id; do
  id=$(call "$gateway/v1/batches/$batch" | field $result)
  [ "$id" = None ] || call "$gateway/v1/files/$id/content"
done
