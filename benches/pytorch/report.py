"""From measurements to the table: medians over the rounds, ratios, aims; and what machine it was.

- A ratio is taken within each round, of measurements that stood next to each other; the table has the median over the
  rounds with the least and the largest.
- For a fixed length there is a second ratio, of the best steps, which other processes disturb least. An aim is reached
  when both ratios reach it: another process slows PyTorch more than Manyhead, so the medians alone would flatter us.
- A figure of PyTorch is that of its best participant by the median over the rounds.
"""
import os
import statistics
import subprocess

from cases import FIGURES

QUIET = 0.1  # cores that others may use in a measurement that is to be quoted


def describe_machine():
    fields = {}
    with open("/proc/cpuinfo") as cpuinfo:
        for line in cpuinfo:
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    return {"cpu": fields.get("model name", "unknown"), "family": fields.get("cpu family"),
            "model": fields.get("model"), "cores": len(os.sched_getaffinity(0))}


def describe_commit(root):
    def git(*words):
        return subprocess.run(["git", "-C", root, *words], capture_output=True, text=True).stdout.strip()

    commit = git("rev-parse", "--short=12", "HEAD") or "unknown"
    return commit + (" with changes" if git("status", "--porcelain", "--untracked-files=no") else "")


def in_short(entry):
    """One measurement for the log."""
    if "error" in entry:
        return f"failed: {entry['error']}"
    result = entry["result"]
    if "seconds_median" in result:
        return f"{result['seconds_median']:.3f} s"
    return (f"{result['tokens_per_second_median']:,.0f} tokens/s, best {result['tokens_per_second']:,.0f}, "
            f"{result['peak_memory_bytes'] / 1e6:,.0f} MB")


class Rounds:
    """The results of one case, by participant and round."""

    def __init__(self, case, session):
        self.entries = [entry for entry in session["measurements"] if entry["case"] == case.name]
        self.left_out = {entry["participant"]: entry["reason"] for entry in session["left_out"]
                         if entry["case"] == case.name}

    def values(self, participant, key):
        """{round: figure} of the measurements that succeeded."""
        return {entry["round"]: entry["result"][key] for entry in self.entries
                if entry["participant"] == participant and key in entry.get("result", {})}

    def median(self, participant, key):
        values = self.values(participant, key)
        return statistics.median(values.values()) if values else None

    def ratios(self, ours, other, key):
        mine, others = self.values(ours, key), self.values(other, key)
        return [mine[number] / others[number] for number in sorted(mine.keys() & others.keys())]

    def disturbed(self, participants):
        return any(entry["cores_used_by_others"] > QUIET for entry in self.entries
                   if entry["participant"] in participants)

    def failures(self, participants):
        """The reason why each of the participants has no figure."""
        reasons = dict.fromkeys(f"{entry['participant']}: {entry['error']}" for entry in self.entries
                                if entry["participant"] in participants and "error" in entry)
        left_out = [f"{name} {self.left_out[name]}" for name in participants if name in self.left_out]
        return "; ".join([*reasons, *left_out])


def reaches(figure, aim, value):
    return value >= aim if figure.larger_is_better else value <= aim


def row(case, comparison, rounds):
    """One comparison with its figures, ratios and whether the aim was reached."""
    figure = FIGURES[comparison.figure]
    measured = {name: rounds.median(name, figure.key) for name in comparison.others}
    measured = {name: value for name, value in measured.items() if value is not None}
    ours = rounds.median(comparison.ours, figure.key)
    made = {"case": case.name, "against": comparison.against, "figure": comparison.figure, "unit": figure.unit,
            "aim": comparison.aim, "ours": ours}
    judged = [ours] if figure.absolute else []
    if measured:
        choose = max if figure.larger_is_better else min
        best = choose(measured, key=measured.get)
        made |= {"other": best, "theirs": measured[best]}
        if ratios := rounds.ratios(comparison.ours, best, figure.key):
            made["ratio"] = {"median": statistics.median(ratios), "least": min(ratios), "largest": max(ratios)}
        # The participant with the best step need not be the one with the best median.
        by_best_step = [statistics.median(found) for name in measured if figure.best_key
                        for found in [rounds.ratios(comparison.ours, name, figure.best_key)] if found]
        if by_best_step:
            made["ratio_of_best_steps"] = (min if figure.larger_is_better else max)(by_best_step)
        if not figure.absolute:
            judged = [made["ratio"]["median"], made.get("ratio_of_best_steps")] if "ratio" in made else []
    judged = [value for value in judged if value is not None]
    if comparison.aim is not None and judged:
        made["reached"] = all(reaches(figure, comparison.aim, value) for value in judged)
    made["disturbed"] = rounds.disturbed((comparison.ours, *comparison.others)) and comparison.figure != "memory"
    made["without"] = [name for name in comparison.others if name not in measured]
    if ours is None or not measured:
        made["missing"] = rounds.failures((comparison.ours,) if ours is None else comparison.others)
    return made


def rows(cases, session):
    made = []
    for case in cases:
        rounds = Rounds(case, session)
        made += [row(case, comparison, rounds) for comparison in case.comparisons]
    return made


def write_value(value, unit):
    if value is None:
        return "–"
    return f"{value:.3f} s" if unit == "s" else f"{value / 1e6:,.0f} MB" if unit == "MB" else f"{value:,.0f}"


def write_row(made):
    figure = FIGURES[made["figure"]]
    ratio = made.get("ratio")
    best = made.get("ratio_of_best_steps")
    aim = "–" if made["aim"] is None else figure.aim.format(made["aim"])
    reached = {True: "yes", False: "no", None: "–"}[made.get("reached")]
    if "missing" in made:
        reached = ": ".join(filter(None, ("not measured", made["missing"])))
    else:
        reached += " (disturbed)" if made["disturbed"] else ""
        reached += f" (without {', '.join(made['without'])})" if made["without"] else ""
    theirs = write_value(made.get("theirs"), made["unit"])
    if "other" in made:
        theirs += f" ({made['other'].removeprefix('PyTorch ')})"
    cells = [made["case"], made["against"], write_value(made["ours"], made["unit"]), theirs,
             f"{ratio['median']:.2f} ({ratio['least']:.2f}–{ratio['largest']:.2f})" if ratio else "–",
             f"{best:.2f}" if best else "–", aim, reached]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def notes(session):
    """What a reader must know of the session, a line each."""
    machine, entries = session["machine"], session["measurements"]
    results = [entry["result"] for entry in entries if "result" in entry]
    versions = dict.fromkeys(f"{name} {version}" for result in results
                             for name, version in result.get("versions", {}).items())
    manyheads = dict.fromkeys(
        f"Manyhead {result['version']}, commit {result.get('commit', 'unknown')}, {result.get('isa', 'unknown')}"
        for result in results if "version" in result)
    made = [
        f"{session['date']}, {machine['cpu']} (family {machine['family']}, model {machine['model']}), "
        f"{machine['cores']} cores, {session['threads']} threads, repository at {session['commit']}.",
        "; ".join([*manyheads, *versions]) or "No measurement succeeded.",
        f"Rounds: {session['rounds']}, of {session['seconds_per_measurement']:g} s a measurement. Tokens/s and MB are "
        "medians over the rounds; a ratio is Manyhead's figure by the other, median (least–largest) over the rounds.",
    ]
    if entries:
        others = [entry["cores_used_by_others"] for entry in entries]
        loads = [entry["load_average"] for entry in entries]
        made.append(f"Load average before the measurements {min(loads):.2f} to {max(loads):.2f}; other processes used "
                    f"{statistics.mean(others):.2f} cores on average, {max(others):.2f} at most.")
        if max(others) > QUIET:
            made.append(f"DISTURBED: more than {QUIET:g} cores went to other processes. Measure again on a quiet machine "
                        "before quoting a ratio.")
    made += [f"{name} was not to be had and not used." for name in session["preloads_missing"]]
    made += [f"Left out: {entry['case']}, {entry['participant']}: {entry['reason']}." for entry in session["left_out"]]
    made += [f"FAILED: {entry['case']}, round {entry['round']}, {entry['participant']}: {entry['error']}"
             for entry in entries if "error" in entry]
    if session.get("interrupted"):
        made.append("Interrupted: not everything was measured.")
    return made


def markdown(session):
    lines = ["| case | against | Manyhead | the other | ratio | of the best | aim | reached |",
             "|---|---|---|---|---|---|---|---|"]
    lines += [write_row(made) for made in session["rows"]]
    lines += ["", *(f"- {note}" for note in notes(session))]
    return "\n".join(lines) + "\n"
