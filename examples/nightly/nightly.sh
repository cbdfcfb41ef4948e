#!/bin/bash
# Measure, hold against the last night that was well, and fail where a size got slower: nightly.sh FOLDER [busbw sweep's options]
# FOLDER keeps good.jsonl, the baseline; new.jsonl becomes that unless it is slower. comparison.md and report.html say what was found.
set -u
folder=${1:?usage: nightly.sh FOLDER [busbw sweep options]}
shift
mkdir -p "$folder" || exit 2
new=$folder/new.jsonl good=$folder/good.jsonl
rm -f "$new"
busbw sweep "$@" --no-report --out "$new" || exit
code=0
if [ -f "$good" ]; then
  busbw compare "$good" "$new" --threshold "${SHARE:-0.1}" --markdown > "$folder/comparison.md"
  code=$?
  busbw report "$good" "$new" -o "$folder/report.html" || exit
  cat "$folder/comparison.md" >> "${GITHUB_STEP_SUMMARY:-/dev/stdout}"
fi
[ $code = 0 ] && mv "$new" "$good"
exit $code
