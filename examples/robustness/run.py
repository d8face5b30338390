#!/usr/bin/env python3
"""Adversarial training on four GLUE tasks: what it gives, and how robust the models are. (What a step costs:
`manyhead bench train --adversarial METHOD`.)

    examples/robustness/run.py --data DIR --out OUT [--seeds 3] [--only TASK[,TASK]] [--methods NAME[,NAME]]
                               [--epochs 2] [--encoder minilm] [--threads N] [--table]

DIR has the data sets in their published layouts, in the folders cola, mrpc, rte and stsb. Each model is trained by itself, then
evaluated on dev: clean, with its embedding output perturbed against the label, and with spelling mistakes. A call that was
stopped goes on where it stood; --table only prints what there is. MANYHEAD names the program (default:
target/release/manyhead). Needs Python alone.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

# What each method is asked for. The published radius of SMART and ALUM, 1e-5, changes outputs in their fifth digit, which
# bf16 does not have: "-published" is in f32. 0.01 is a radius at which a plain model's answers begin to change. FreeLB's
# published strength (radius 0.3, step 0.1 on word vectors) leaves MiniLM with the majority; a tenth of it learns.
RADIUS = ":epsilon=0.01:step-size=0.01:noise=0.001"
METHODS = {
    "plain": [],
    "smart": ["--adversarial", "smart" + RADIUS],
    "alum": ["--adversarial", "alum" + RADIUS],
    "freelb": ["--adversarial", "freelb:epsilon=0.03:step-size=0.01"],
    "rdrop": ["--adversarial", "rdrop"],
    "plain-f32": ["--precision", "f32"],
    "smart-published": ["--adversarial", "smart", "--precision", "f32"],
    "alum-published": ["--adversarial", "alum", "--precision", "f32"],
    "smart-legacy": ["--adversarial", "smart-legacy"],
    "freelb-published": ["--adversarial", "freelb"],
}
# What is run on each task: first these methods with every seed, then the further ones.
TASKS = {
    "rte": ["plain", "smart", "alum", "freelb", "rdrop"],
    "mrpc": ["plain", "smart", "alum", "freelb", "rdrop"],
    "cola": ["plain", "smart"],
    "stsb": ["plain", "smart"],
}
FURTHER = {
    "rte": ["plain-f32", "smart-published", "alum-published", "smart-legacy", "freelb-published"],
    "mrpc": ["freelb-published"],
    "cola": [],
    "stsb": [],
}
PERTURB = ["--perturb", "embedding,typo", "--epsilon", "0.01", "--steps", "5", "--rate", "0.2", "--seed", "1"]
COLUMNS = ["clean", "embedding", "typo"]


def main():
    options = arguments()
    program = os.environ.get("MANYHEAD") or str(Path(__file__).resolve().parents[2] / "target/release/manyhead")
    out = Path(options.out)
    if not options.table:
        rows = prepare(program, options, out)
        for plan in (TASKS, FURTHER):
            for seed in range(1, options.seeds + 1):
                for task, methods in plan.items():
                    for method in methods:
                        if chosen(options.only, task) and chosen(options.methods, method):
                            run(program, options, rows, out, task, method, seed)
    table(out, options.seeds)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the data sets")
    parser.add_argument("--out", required=True, help="folder for rows, models and results")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="tasks, parted by commas")
    parser.add_argument("--methods", default="", help="methods, parted by commas")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--threads", default="0")
    parser.add_argument("--table", action="store_true", help="print the results that there are")
    options = parser.parse_args()
    if not options.table and not options.data:
        parser.error("--data is needed")
    for names, known in [(options.only, TASKS), (options.methods, METHODS)]:
        unknown = [name for name in names.split(",") if name and name not in known]
        if unknown:
            parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    return options


def chosen(names, name):
    return not names or name in names.split(",")


def call(command):
    """Runs the program; its talk goes to standard error, its result is returned."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}")
    return done.stdout


def prepare(program, options, out):
    rows = out / "data"
    if not (rows / "tasks.yml").exists():
        out.mkdir(parents=True, exist_ok=True)
        call([program, "import", "glue", options.data, "--out", rows, "--tasks", ",".join(TASKS)])
    return rows


def run(program, options, rows, out, task, method, seed):
    folder = out / task / method / f"seed-{seed}"
    result = folder / "result.json"
    if result.exists():
        return
    print(f"{task}, {method}, seed {seed}", file=sys.stderr, flush=True)
    tasks = rows / f"{task}.yml"
    if not tasks.exists():
        tasks.write_text(one_task((rows / "tasks.yml").read_text(), task))
    common = ["--threads", options.threads, "--quiet"]
    call([program, "train", "--tasks", tasks, "--encoder", options.encoder, "--out", folder, "--resume", "--seed", str(seed),
          "--epochs", str(options.epochs), "--learning-rate", "1e-4", "--dropout", "0.1", *METHODS[method], *common])
    found = json.loads(call([program, "eval", "--model", folder, "--tasks", tasks, "--json", *PERTURB, *common]))
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    batches = [line for line in log if line["event"] == "batch"]
    found["dropped"] = sum(len(line.get("dropped", [])) for line in batches)
    # Whole or not at all.
    partial = result.with_suffix(".partial")
    partial.write_text(json.dumps(found))
    partial.rename(result)


def one_task(text, task):
    """The lines of one task of a task file: from its name to the next line that is not indented."""
    kept, inside = [], False
    for line in text.splitlines():
        if line and not line[0].isspace():
            inside = line.split(":")[0].strip("\"'") == task
        if inside:
            kept.append(line)
    return "\n".join(kept) + "\n"


def table(out, seeds):
    """Mean and deviation over the seeds of each task's metrics, times 100; then what has not run."""
    print("| task | method | seeds | metric | clean | embedding | typo |")
    print("|---|---|---|---|---|---|---|")
    missing = []
    for task, methods in TASKS.items():
        for method in methods + FURTHER[task]:
            paths = [out / task / method / f"seed-{seed}" / "result.json" for seed in range(1, seeds + 1)]
            results = [json.loads(path.read_text()) for path in paths if path.exists()]
            if len(results) < seeds:
                missing.append(f"{task} {method}: {len(results)} of {seeds} seeds")
            if not results:
                continue
            for metric in results[0]["tasks"][task]["metrics"]:
                cells = [cell(results, task, column, metric) for column in COLUMNS]
                print(f"| {task} | {method} | {len(results)} | {metric} | {' | '.join(cells)} |")
            dropped = sum(result["dropped"] for result in results)
            if dropped:
                print(f"{task}, {method}: {dropped} batches went without the term", file=sys.stderr)
    print("\nNot run: " + ("; ".join(missing) if missing else "nothing"))


def cell(results, task, column, metric):
    values = [result["tasks"][task][column]["metrics"][metric] for result in results]
    values = [100 * value for value in values if value is not None]
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}" if values else "-"


if __name__ == "__main__":
    main()
