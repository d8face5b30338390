"""What is measured: the cases, who takes part in each, what is compared and what is aimed at. No code runs from here.

- A Participant is one command, measured once a round; the participants of a case take turns.
- A Comparison is one row of the table: one of Manyhead's participants against the best of some others.
- Options of a shape are the same for `manyhead bench` and worker.py.
"""
from dataclasses import dataclass

MINILM = ("--encoder-config", "minilm")
BASE = ("--encoder-config", "base")
FIXED_32 = ("--batch", "32", "--length", "128")
FIXED_8 = ("--batch", "8", "--length", "128")
VARIABLE = ("--batch", "16", "--lengths", "lognormal:25:0.6:4:64")
DROPOUT = ("--dropout", "0.1")

MANYHEAD = "Manyhead"
STOCK = "PyTorch f32 stock"


@dataclass(frozen=True)
class Participant:
    name: str
    program: str  # "manyhead" or "pytorch": `manyhead bench` or worker.py; "manyhead-cold" or "pytorch-cold"
    options: tuple[str, ...] = ()
    threads: int | None = None  # None: as the driver was told
    preloads: tuple[str, ...] = ()  # libraries of target/pytorch-bench/lib, used if they are there
    needs: str | None = None  # a Python package without which the participant is left out


@dataclass(frozen=True)
class Comparison:
    against: str  # for the table
    others: tuple[str, ...]  # participants; the best of them counts
    aim: float | None = None
    figure: str = "speed"  # a key of FIGURES
    ours: str = MANYHEAD


@dataclass(frozen=True)
class Figure:
    """How a figure is read from a participant's result, and what its aim says."""
    key: str
    best_key: str | None  # of the best step
    larger_is_better: bool
    aim: str  # how the aim is written
    unit: str
    absolute: bool = False  # the aim is about our own figure, not the ratio


@dataclass(frozen=True)
class Case:
    name: str
    participants: tuple[Participant, ...]
    comparisons: tuple[Comparison, ...]


FIGURES = {
    "speed": Figure("tokens_per_second_median", "tokens_per_second", True, ">= {:g}", "tokens/s"),
    # Lengths differ from step to step: which step is best is luck of the draw, so only medians count.
    "speed of variable lengths": Figure("tokens_per_second_median", None, True, ">= {:g}", "tokens/s"),
    "memory": Figure("peak_memory_bytes", None, False, "<= {:g}", "MB"),
    "start": Figure("seconds_median", "seconds_best", False, "<= {:g} s", "s", absolute=True),
}


def manyhead(mode, precision, *options, name=MANYHEAD, threads=None):
    return Participant(name, "manyhead", (mode, *options, "--precision", precision), threads)


def bf16(mode, *options, name="PyTorch bf16"):
    return Participant(name, "pytorch", (mode, *options, "--precision", "bf16"), preloads=("tcmalloc",))


def fakeintel(mode, *options):
    """f32 as fast as it gets on AMD; on Intel the preload changes nothing."""
    return Participant("PyTorch f32 fakeintel", "pytorch", (mode, *options, "--precision", "f32"),
                       preloads=("tcmalloc", "fakeintel"))


def stock(mode, *options):
    """What one gets who preloads nothing."""
    return Participant(STOCK, "pytorch", (mode, *options, "--precision", "f32"))


def engines(*options, suffix=""):
    """PyTorch's three ways of inference in bf16; which is best differs with machine and shape."""
    preloads = ("tcmalloc",)
    options = ("infer", *options, "--precision", "bf16", "--engine")
    return (
        Participant(f"PyTorch bf16 eager{suffix}", "pytorch", (*options, "eager"), preloads=preloads),
        Participant(f"PyTorch bf16 inductor{suffix}", "pytorch", (*options, "inductor"), preloads=preloads),
        Participant(f"PyTorch bf16 zentorch{suffix}", "pytorch", (*options, "zentorch"), preloads=preloads,
                    needs="zentorch"),
    )


def names(participants):
    return tuple(participant.name for participant in participants)


def training(name, precision, shape, best, comparisons):
    """Training of one shape: Manyhead, then PyTorch's `best`; the memory of both is always compared."""
    memory = Comparison("PyTorch, memory", names(best), 0.5, "memory")
    return Case(name, (manyhead("train", precision, *shape), *best), (*comparisons, memory))


def fixed_training(name, precision, shape, fast, aim):
    participants = (fast("train", *shape), stock("train", *shape))
    # Where both are f32, the stock one may be the best.
    best = names(participants) if precision == "f32" else names(participants[:1])
    return training(name, precision, shape, participants,
                    (Comparison("PyTorch's best", best, aim), Comparison("stock f32", (STOCK,))))


def variable_training(name, against, aim, *grouped):
    shape = (*MINILM, *VARIABLE, *DROPOUT)
    participant = bf16("train", *shape, *grouped, name=f"PyTorch bf16 {against}")
    comparison = Comparison(f"{against} batches", (participant.name,), aim, "speed of variable lengths")
    return training(name, "bf16", shape, (participant,), (comparison,))


def inference():
    others = engines(*MINILM, *FIXED_32)
    return Case("infer-minilm-bf16",
                (manyhead("infer", "bf16", *MINILM, *FIXED_32), *others, stock("infer", *MINILM, *FIXED_32)),
                (Comparison("PyTorch's best", names(others), 1.1), Comparison("stock f32", (STOCK,))))


def variable_inference():
    shape = (*MINILM, *VARIABLE)
    mixed, grouped = engines(*shape, suffix=" random"), engines(*shape, "--grouped", suffix=" grouped")
    figure = "speed of variable lengths"
    return Case("infer-minilm-variable", (manyhead("infer", "bf16", *shape), *mixed, *grouped),
                (Comparison("random batches", names(mixed), 2.0, figure),
                 Comparison("grouped batches", names(grouped), None, figure)))


def thread_scaling():
    """Manyhead beside itself."""
    participants, comparisons = [], []
    for precision in ("f32", "bf16"):
        one, two = f"Manyhead {precision} 1 thread", f"Manyhead {precision} 2 threads"
        for name, threads in ((one, 1), (two, 2)):
            participants.append(manyhead("train", precision, *MINILM, *FIXED_32, *DROPOUT, name=name, threads=threads))
        comparisons.append(Comparison(f"{precision}: 2 threads to 1", (one,), 1.85, ours=two))
    return Case("threads", tuple(participants), tuple(comparisons))


CASES = (
    fixed_training("train-minilm-bf16", "bf16", (*MINILM, *FIXED_32, *DROPOUT), bf16, 1.8),
    fixed_training("train-minilm-f32", "f32", (*MINILM, *FIXED_32, *DROPOUT), fakeintel, 1.5),
    variable_training("train-minilm-variable-random", "random", 4.0),
    variable_training("train-minilm-variable-grouped", "grouped", 1.9, "--grouped"),
    fixed_training("train-base-bf16", "bf16", (*BASE, *FIXED_8, *DROPOUT), bf16, 1.5),
    inference(),
    variable_inference(),
    Case("cold-start", (Participant(MANYHEAD, "manyhead-cold"), Participant("PyTorch", "pytorch-cold")),
         (Comparison("PyTorch", ("PyTorch",), 0.15, "start"),)),
    thread_scaling(),
)
