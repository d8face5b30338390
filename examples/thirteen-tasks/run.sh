#!/usr/bin/env bash
# Fine-tunes MiniLM on fourteen tasks at once, of all four kinds, and ends with a table of their dev metrics.
#
#   examples/thirteen-tasks/run.sh --data DIR --out OUT [--only TASK[,TASK…]] [options of `manyhead train`]
#
# DIR has the data sets in their published layouts, in the folders cola, mrpc, rte, stsb, sst2-small, trec,
# snli-dev-as-train, wikiqa, snips, wnut17, ncbi-disease, bc5cdr, chemprot. OUT gets data/ (rows and task file) and
# the run. --only trains a part of the tasks. MANYHEAD names the program (default: target/release/manyhead).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
program=${MANYHEAD:-$here/../../target/release/manyhead}
data='' out='' only='' encoder=minilm
options=()
while [ $# -gt 0 ]; do
    case $1 in
        --data) data=$2; shift 2 ;;
        --out) out=$2; shift 2 ;;
        --only) only=$2; shift 2 ;;
        --encoder) encoder=$2; shift 2 ;;
        *) options+=("$1"); shift ;;
    esac
done
if [ -z "$data" ] || [ -z "$out" ]; then
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
data=$(cd "$data" && pwd)
rows=$out/data
if [ ! -e "$rows/tasks.yml" ]; then
    # Into another folder first: what an interrupted call leaves behind is not taken for the whole.
    whole=$rows rows=$out/data.partial
    rm -rf "$rows"
    "$program" import glue "$data" --out "$rows/glue" --tasks cola,sst,mrpc,rte,stsb >&2
    "$program" import trec "$data/trec/TREC.train.all" --out "$rows/whole-trec" >&2
    "$program" import snli "$data/snli-dev-as-train" --out "$rows/whole-snli" >&2
    "$program" import wikiqa "$data/wikiqa" --out "$rows/wikiqa" >&2
    "$program" import snips "$data/snips" --out "$rows/snips" >&2
    # These two come without a dev split.
    "$program" data split --tasks "$rows/whole-trec/tasks.yml" --out "$rows/trec" >&2
    "$program" data split --tasks "$rows/whole-snli/tasks.yml" --split dev --out "$rows/snli" >&2
    sed "s|DATA/|$data/|g" "$here/tasks.yml" >"$rows/tasks.yml"
    rm -rf "$whole"
    mv "$rows" "$whole"
    rows=$whole
fi
tasks=$rows/tasks.yml
if [ -n "$only" ]; then
    tasks=$rows/only-${only//,/-}.yml
    awk -v only=",$only," '/^[a-z0-9]+:/ { name = $1; sub(":", "", name); keep = index(only, "," name ",") } keep' \
        "$rows/tasks.yml" >"$tasks"
fi
"$program" train --tasks "$tasks" --encoder "$encoder" --out "$out/run${only:+-${only//,/-}}" \
    --epochs 3 --learning-rate 1e-4 --dropout 0.1 "${options[@]+"${options[@]}"}"
