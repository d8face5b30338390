#!/usr/bin/env python3
"""Measures Manyhead's speed on the CPU beside PyTorch's best, in turns, in one session.

    python3 benches/pytorch/run.py [--rounds 3] [--cases NAME,...] [--model DIR]

- cases.py says what is measured, worker.py is one measurement of PyTorch, report.py makes the table of it.
- setup.sh installs PyTorch under target/pytorch-bench the first time.
- The table goes to standard output, talk to standard error. Exit 1 if a measurement failed, 2 for wrong usage.
"""
import argparse
import json
import math
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import report
from cases import CASES

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HOME = ROOT / "target" / "pytorch-bench"
LIMIT = 900  # seconds that one measurement may take, compiling included
CALIBRATION_STEPS = 3
FEWEST_STEPS = 5
KEYS = ("tokens_per_second", "tokens_per_second_median", "step_seconds_median", "peak_memory_bytes")
SENTENCE = "A fine film."
COLD_STARTS = {"manyhead-cold": 10, "pytorch-cold": 3}


class Failed(Exception):
    """A measurement failed; the text is the reason, one line."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def parse_arguments():
    parser = argparse.ArgumentParser(description="Manyhead's speed on the CPU beside PyTorch's best, in turns.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", metavar="NAME,...", help=f"default: all of {', '.join(case.name for case in CASES)}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds-per-measurement", type=float, default=12, metavar="N",
                        help="after the warm-up (default 12)")
    parser.add_argument("--manyhead", type=Path, default=ROOT / "target/release/manyhead", metavar="PROGRAM")
    parser.add_argument("--model", type=Path, metavar="DIR", help="model folder of Manyhead, for cold-start")
    parser.add_argument("--out", type=Path, default=HOME / "results.json", help="every measurement as JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the table into a file, too")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.threads < 1 or arguments.seconds_per_measurement <= 0:
        parser.error("--rounds, --threads and --seconds-per-measurement must be positive")
    known = {case.name: case for case in CASES}
    wanted = arguments.cases.split(",") if arguments.cases else list(known)
    for name in wanted:
        if name not in known:
            parser.error(f"no case is named '{name}'; there are {', '.join(known)}")
    arguments.cases = [known[name] for name in wanted]
    if not os.access(arguments.manyhead, os.X_OK):
        parser.error(f"{arguments.manyhead} is not there: build it with `cargo build --release`, or give --manyhead")
    if arguments.model and not (arguments.model / "tasks.yml").exists():
        parser.error(f"{arguments.model} has no tasks.yml: --model takes a folder that `manyhead train` wrote")
    return arguments


class Bench:
    """Runs participants; knows the options of this session."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.python = HOME / "venv/bin/python"
        self.steps = {}  # of Manyhead's participants: how many fill the time

    def missing(self, participant):
        """Why a participant cannot take part, or None."""
        if participant.program.endswith("-cold") and not self.arguments.model:
            return "needs --model DIR"
        if participant.needs and not list(HOME.glob(f"venv/lib/python*/site-packages/{participant.needs}")):
            return f"{participant.needs} is not installed"
        return None

    def environment(self, participant):
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(HOME / "inductor")}
        environment.pop("LD_PRELOAD", None)  # cases.py decides
        libraries = [HOME / "lib" / f"lib{name}.so" for name in participant.preloads]
        if libraries := [str(library) for library in libraries if library.exists()]:
            environment["LD_PRELOAD"] = " ".join(libraries)
        return environment

    def call(self, command, participant, text=""):
        """Standard output of a command that must succeed."""
        try:
            done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=LIMIT,
                                  env=self.environment(participant))
        except subprocess.TimeoutExpired:
            raise Failed(f"took more than {LIMIT} s") from None
        except OSError as error:
            raise Failed(str(error)) from None
        if done.returncode:
            lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            raise Failed(lines[-1] if lines else f"exit code {done.returncode} without a message")
        return done.stdout

    def json_of(self, command, participant):
        """The object on standard output: all of it, or its last line where a library talked before."""
        output = self.call(command, participant).strip()
        for text in (output, output.rpartition("\n")[2]):
            try:
                result = json.loads(text)
            except json.JSONDecodeError:
                continue
            if lacking := [key for key in KEYS if key not in result]:
                raise Failed(f"the result lacks {', '.join(lacking)}")
            return result
        raise Failed("no JSON object on standard output")

    def measure(self, participant):
        """The result of one measurement, a dict, or Failed."""
        measures = {"manyhead": self.measure_manyhead, "pytorch": self.measure_pytorch}
        return measures.get(participant.program, self.measure_cold)(participant)

    def measure_manyhead(self, participant):
        def bench(steps):
            threads = participant.threads or self.arguments.threads
            command = [self.arguments.manyhead, "bench", *participant.options, "--threads", str(threads),
                       "--device", "cpu", "--steps", str(steps), "--json"]
            return self.json_of(command, participant)

        # A few steps, once, to know how many fill the time.
        key = (participant.options, participant.threads)
        if key not in self.steps:
            seconds = bench(CALIBRATION_STEPS)["step_seconds_median"]
            self.steps[key] = max(FEWEST_STEPS, math.ceil(self.arguments.seconds_per_measurement / seconds))
        return bench(self.steps[key])

    def measure_pytorch(self, participant):
        threads = participant.threads or self.arguments.threads
        command = [self.python, HERE / "worker.py", *participant.options, "--threads", str(threads),
                   "--seconds", str(self.arguments.seconds_per_measurement)]
        return self.json_of(command, participant)

    def measure_cold(self, participant):
        """Whole processes: start, read the weights, classify one sentence. The files are in the page cache."""
        model, threads = self.arguments.model, str(self.arguments.threads)
        if participant.program == "manyhead-cold":
            command = [self.arguments.manyhead, "predict", "--model", model, "--task", sentence_task(model), "--input",
                       "-", "--format", "text", "--threads", threads]
        else:
            command = [self.python, HERE / "worker.py", "cold", "--model", model, "--sentence", SENTENCE, "--threads",
                       threads]
        seconds = []
        self.call(command, participant, SENTENCE + "\n")
        for _ in range(COLD_STARTS[participant.program]):
            start = time.perf_counter()
            self.call(command, participant, SENTENCE + "\n")
            seconds.append(time.perf_counter() - start)
        return {"seconds_best": min(seconds), "seconds_median": statistics.median(seconds)}


def sentence_task(model):
    """The name of the first task of a model folder that takes single sentences."""
    entries = re.split(r"^(?=\S)", (model / "tasks.yml").read_text(), flags=re.MULTILINE)
    for entry in entries:
        name = re.match(r"""["']?([^"':#\n]+)["']?:""", entry)
        if name and re.search(r"^\s+data_format:\s*PremiseOnly\b", entry, re.MULTILINE):
            return name[1]
    raise Failed(f"{model} has no task of single sentences (data_format: PremiseOnly)")


def busy_seconds():
    """CPU seconds that all processes of the machine have used, and those that its host kept from it (steal)."""
    with open("/proc/stat") as stat:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def children_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def observe(bench, case, participant, round_number):
    """One entry of the results: the measurement with what went on beside it."""
    entry = {"case": case.name, "participant": participant.name, "round": round_number,
             "load_average": os.getloadavg()[0]}
    start, busy, own = time.perf_counter(), busy_seconds(), children_seconds()
    try:
        entry["result"] = bench.measure(participant)
    except Failed as failure:
        entry["error"] = str(failure)
    entry["seconds"] = time.perf_counter() - start
    used_by_others = (busy_seconds() - busy) - (children_seconds() - own)
    entry["cores_used_by_others"] = max(0.0, used_by_others / entry["seconds"])
    say(f"{case.name}, round {round_number}, load {entry['load_average']:.2f}, others "
        f"{entry['cores_used_by_others']:.2f} cores: {participant.name}: {report.in_short(entry)}")
    return entry


def stop(_signal, _frame):
    raise KeyboardInterrupt  # `call` then ends its child, too


def run_cases(bench, arguments, session):
    for case in arguments.cases:
        taking_part = []
        for participant in case.participants:
            if reason := bench.missing(participant):
                session["left_out"].append({"case": case.name, "participant": participant.name, "reason": reason})
                say(f"{case.name}: {participant.name} is left out: {reason}")
            else:
                taking_part.append(participant)
        for round_number in range(1, arguments.rounds + 1):
            for participant in taking_part:
                session["measurements"].append(observe(bench, case, participant, round_number))


def needs_setup(arguments):
    """Whether anything of the chosen cases runs PyTorch."""
    return any(participant.program == "pytorch" or participant.program == "pytorch-cold" and arguments.model
               for case in arguments.cases for participant in case.participants)


def main():
    arguments = parse_arguments()
    if needs_setup(arguments) and subprocess.run([HERE / "setup.sh"]).returncode:
        say("run: PyTorch could not be set up")
        return 1
    session = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": report.describe_machine(), "commit": report.describe_commit(ROOT),
        "rounds": arguments.rounds, "threads": arguments.threads,
        "seconds_per_measurement": arguments.seconds_per_measurement,
        "preloads_missing": [] if not needs_setup(arguments) else [
            name for name in ("tcmalloc", "fakeintel") if not (HOME / "lib" / f"lib{name}.so").exists()],
        "measurements": [], "left_out": [],
    }
    signal.signal(signal.SIGTERM, stop)
    try:
        run_cases(Bench(arguments), arguments, session)
    except KeyboardInterrupt:
        say("run: interrupted; what was measured so far follows")
        session["interrupted"] = True
    session["rows"] = report.rows(arguments.cases, session)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(session, indent=1) + "\n")
    text = report.markdown(session)
    if arguments.markdown:
        arguments.markdown.write_text(text)
    print(text, end="")
    if session.get("interrupted"):
        return 130
    return 1 if any("error" in entry for entry in session["measurements"]) else 0


if __name__ == "__main__":
    sys.exit(main())
