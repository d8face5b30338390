#!/usr/bin/env python3
"""Distillation on five tasks together: what students of two and three layers keep of their teacher's skill.

    examples/distillation/run.py --data DIR --out OUT [--seeds 3] [--sizes 2,3] [--methods NAME[,NAME]] [--epochs 3]
                                 [--teacher-epochs 3] [--encoder minilm] [--threads N] [--table]

DIR has the data sets in their published layouts, in the folders sst2-small, mrpc, rte, stsb and wnut17. One to three teachers are
fine-tuned (seeds 1 to 3; the second and third for the ensemble alone), then each student is made of the first one's layers and trained
with each seed. A call that was stopped goes on where it stood; --table only prints what there is. MANYHEAD names the
program (default: target/release/manyhead). Needs Python alone.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

# What each student learns from.
METHODS = {
    "labels": ["--soft-weight", "0"],
    "soft": [],
    "hidden": ["--hidden-weight", "1", "--layer-map", "even"],
    "anneal": ["--hidden-weight", "1", "--layer-map", "even", "--anneal"],
    "ensemble": [],
    "relations": ["--relation-weight", "1"],
}
WNUT = """wnut:
  data_format: Seqence
  task_type: SeqenceLabeling
  n_class: 13
  metric_meta: [SeqEval]
  enable_san: false
  data: {train: %s, dev: %s, format: conll}
"""


def main():
    options = arguments()
    program = os.environ.get("MANYHEAD") or str(Path(__file__).resolve().parents[2] / "target/release/manyhead")
    out = Path(options.out)
    if not options.table:
        tasks = prepare(program, options, out)
        for seed in range(1, options.seeds + 1):
            for size in options.sizes.split(","):
                for method in options.methods.split(","):
                    student(program, options, tasks, out, size, method, seed)
    table(out, options)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the data sets")
    parser.add_argument("--out", required=True, help="folder for rows, models and results")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sizes", default="2,3", help="layers of students, parted by commas")
    parser.add_argument("--methods", default=",".join(METHODS), help="methods, parted by commas")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--teacher-epochs", type=int, default=3)
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--threads", default="0")
    parser.add_argument("--table", action="store_true", help="print the results that there are")
    options = parser.parse_args()
    if not options.table and not options.data:
        parser.error("--data is needed")
    unknown = [name for name in options.methods.split(",") if name not in METHODS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(METHODS)}")
    return options


def call(command):
    """Runs the program; its talk goes to standard error."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.DEVNULL)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}")


def prepare(program, options, out):
    """The task file of all five."""
    tasks = out / "data" / "all.yml"
    if not tasks.exists():
        out.mkdir(parents=True, exist_ok=True)
        data = Path(options.data).resolve()
        call([program, "import", "glue", data, "--out", out / "data", "--tasks", "sst,mrpc,rte,stsb", "--quiet"])
        own = (out / "data" / "tasks.yml").read_text()
        wnut = WNUT % (data / "wnut17" / "wnut17train.conll", data / "wnut17" / "emerging.dev.conll")
        tasks.write_text(own + wnut)
    return tasks


def teacher(program, options, tasks, out, seed):
    folder = out / f"teacher-{seed}"
    done = folder / "done"
    if not done.exists():
        print(f"teacher {seed}", file=sys.stderr, flush=True)
        call([program, "train", "--tasks", tasks, "--encoder", options.encoder, "--out", folder, "--epochs",
              options.teacher_epochs, "--learning-rate", "1e-4", "--dropout", "0.1", "--seed", seed, "--threads",
              options.threads, "--quiet", "--resume"])
        done.touch()
    return folder


def student(program, options, tasks, out, size, method, seed):
    folder = out / f"layers-{size}" / method / f"seed-{seed}"
    if (folder / "distillation.json").exists():
        return
    teachers = [teacher(program, options, tasks, out, number) for number in ((1, 2, 3) if method == "ensemble" else (1,))]
    print(f"{size} layers, {method}, seed {seed}", file=sys.stderr, flush=True)
    call([program, "distill", *(part for one in teachers for part in ("--teacher", one)), "--student", f"layers={size}",
          "--tasks", tasks, "--out", folder, "--epochs", options.epochs, "--learning-rate", "1e-4", "--dropout", "0.1",
          "--seed", seed, "--threads", options.threads, "--quiet", *METHODS[method],
          *(["--resume"] if (folder / "run.yml").exists() else [])])


def scores(side):
    """Task and metric of each number, times 100; of each task the first metric first."""
    found = {}
    for task, splits in side["tasks"].items():
        for metric, value in splits["dev"]["metrics"].items():
            found[f"{task} {metric}"] = 100 * value
    firsts = {}
    for name, value in found.items():
        firsts.setdefault(name.split()[0], value)
    found["mean of first metrics"] = statistics.mean(firsts.values())
    return found


def table(out, options):
    """Mean and deviation over the seeds; then what has not run."""
    columns, missing = [], []
    for size in options.sizes.split(","):
        for method in options.methods.split(","):
            paths = [out / f"layers-{size}" / method / f"seed-{seed}" / "distillation.json" for seed in range(1, options.seeds + 1)]
            results = [json.loads(path.read_text()) for path in paths if path.exists()]
            if len(results) < options.seeds:
                missing.append(f"{size} layers, {method}: {len(results)} of {options.seeds} seeds")
            if results:
                columns.append((f"{size} layers, {method}", [result["student"] for result in results]))
                if not any(name == "teacher" for name, _ in columns) and len(results[0]["teachers"]) == 1:
                    columns.insert(0, ("teacher", [results[0]["teachers"][0]]))
    if columns:
        names = list(scores(columns[0][1][0]))
        print("| | " + " | ".join(["million parameters", "MB", "tokens/s", *names]) + " |")
        print("|---" * (len(names) + 4) + "|")
        for name, sides in columns:
            size = [f"{sides[0]['parameters'] / 1e6:.1f}", f"{sides[0]['bytes'] / 1e6:.0f}"]
            speed = f"{statistics.median(side['tokens_per_second'] for side in sides):.0f}"
            cells = [cell([scores(side)[metric] for side in sides]) for metric in names]
            print("| " + " | ".join([name, *size, speed, *cells]) + " |")
    print("\nNot run: " + ("; ".join(missing) if missing else "nothing"))


def cell(values):
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


if __name__ == "__main__":
    main()
