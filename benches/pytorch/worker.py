"""One PyTorch measurement in one process: prints one JSON object on standard output.

    venv/bin/python worker.py train --encoder-config minilm --precision bf16 --batch 32 --length 128 --dropout 0.1
    venv/bin/python worker.py infer --engine inductor --lengths lognormal:25:0.6:4:64 --batch 16 --grouped
    venv/bin/python worker.py cold --model FOLDER

- A training step is forward, backward, clip_grad_norm_(1.0) and AdamW, of a BERT with random weights, pooler, dropout
  and a head of two classes. Making the batch is not timed.
- Only real tokens count. Variable lengths are drawn in pools of batches, anew for each pool, and padded to the longest
  of their batch; with --grouped a pool is sorted by length before it is cut into batches, whose order is then shuffled
  again (`group_by_length` of transformers).
- tokens_per_second is that of the best step. tokens_per_second_median is that of the median step for a fixed length,
  and for variable lengths that of the median pool: all its tokens by all its seconds, since batches differ in size.
- `cold` is timed from outside: from the start of the process to the class of one sentence.
"""
import argparse
import contextlib
import itertools
import json
import logging
import math
import os
import random
import statistics
import sys
import time
import warnings

CONFIGS = {  # layers, hidden, heads, intermediate
    "minilm": (6, 384, 12, 1536),
    "base": (12, 768, 12, 3072),
}
VOCABULARY = 30522
POOL = 8  # batches
GROUPED_POOL = 32  # the more, the less padding: 97 % of the tokens are real with 32
WARM_UP_BATCHES = 64  # of variable lengths
FEWEST_STEPS = 5
WARM_UP_STEPS = 2


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=["train", "infer", "cold"])
    parser.add_argument("--encoder-config", choices=CONFIGS, default="minilm")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--lengths", metavar="lognormal:MEDIAN:SIGMA:MIN:MAX", help="instead of --length")
    parser.add_argument("--grouped", action="store_true", help="batches of like lengths")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--engine", choices=["eager", "inductor", "zentorch"], default="eager")
    parser.add_argument("--attention", choices=["eager", "sdpa"], default="eager")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=12.0, help="how long to measure, after the warm-up")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", help="folder for `cold`")
    parser.add_argument("--sentence", default="A fine film.", help="what `cold` classifies")
    arguments = parser.parse_args()
    if arguments.mode == "cold" and not arguments.model:
        parser.error("cold needs --model")
    if arguments.mode == "train" and arguments.engine != "eager":
        parser.error("training is measured eager: compiled it is slower")
    return arguments


class Lengths:
    """Endless pools of batches, each a list of lengths, drawn from a seed; for a fixed length a pool is one batch."""

    def __init__(self, arguments):
        self.batch, self.grouped = arguments.batch, arguments.grouped
        self.random = random.Random(arguments.seed)
        self.fixed = None if arguments.lengths else arguments.length
        if arguments.lengths:
            kind, *numbers = arguments.lengths.split(":")
            if kind != "lognormal" or len(numbers) != 4:
                sys.exit(f"worker: --lengths {arguments.lengths}: expected lognormal:MEDIAN:SIGMA:MIN:MAX")
            self.median, self.sigma = map(float, numbers[:2])
            self.least, self.most = map(int, numbers[2:])

    def draw(self):
        length = round(math.exp(self.random.gauss(math.log(self.median), self.sigma)))
        return min(max(length, self.least), self.most)

    def pools(self):
        while self.fixed:
            yield [[self.fixed] * self.batch]
        while True:
            size = (GROUPED_POOL if self.grouped else POOL) * self.batch
            lengths = [self.draw() for _ in range(size)]
            if self.grouped:
                lengths.sort()
            batches = [lengths[start:start + self.batch] for start in range(0, len(lengths), self.batch)]
            if self.grouped:
                self.random.shuffle(batches)
            yield batches


def make_batch(torch, arguments, lengths):
    """ids (B, T), mask (B, T) or None where nothing is ever padded, classes (B)."""
    size = (len(lengths), max(lengths))
    ids = torch.randint(5, VOCABULARY, size)
    mask = None
    if arguments.lengths:  # also for a batch without padding: without a mask it would be compiled anew
        mask = (torch.arange(size[1])[None] < torch.tensor(lengths)[:, None]).long()
        ids *= mask
    return ids, mask, torch.randint(0, 2, (size[0],))


def moved(batch, device):
    return [None if part is None else part.to(device) for part in batch]


def make_model(torch, arguments):
    from transformers import BertConfig, BertModel

    layers, hidden, heads, intermediate = CONFIGS[arguments.encoder_config]
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=intermediate, hidden_dropout_prob=arguments.dropout,
        attention_probs_dropout_prob=arguments.dropout, attn_implementation=arguments.attention)

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = BertModel(config, add_pooling_layer=True)
            self.dropout = torch.nn.Dropout(arguments.dropout)
            self.head = torch.nn.Linear(hidden, 2)

        def forward(self, ids, mask):
            pooled = self.encoder(input_ids=ids, attention_mask=mask).pooler_output
            return self.head(self.dropout(pooled))

    return Classifier()


def autocast(torch, device, wanted):
    return torch.autocast(device, torch.bfloat16) if wanted else contextlib.nullcontext()


def training_step(torch, arguments):
    model = make_model(torch, arguments).to(arguments.device).train()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, weight_decay=0.01, fused=True)

    def step(ids, mask, classes):
        optimizer.zero_grad(set_to_none=True)
        with autocast(torch, arguments.device, arguments.precision == "bf16"):
            logits = model(ids, mask)
        torch.nn.functional.cross_entropy(logits.float(), classes).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return step


def inference_step(torch, arguments):
    model = make_model(torch, arguments).to(arguments.device).eval()
    bf16 = arguments.precision == "bf16"
    # Weights in bf16 save casts (6 % eager), but inductor is 2-8 % slower with them: it folds the casts of autocast.
    by_autocast = bf16 and arguments.engine == "inductor"
    if bf16 and not by_autocast:
        model = model.to(torch.bfloat16)
    if arguments.engine != "eager":
        if arguments.engine == "zentorch":
            import zentorch  # noqa: F401: registers the backend
        import torch._inductor.config

        torch._inductor.config.freezing = True
        model = torch.compile(model, backend=arguments.engine, dynamic=True if arguments.lengths else None)

    def step(ids, mask, _classes):
        # Freezing needs no_grad: it does nothing under inference_mode.
        with torch.no_grad(), autocast(torch, arguments.device, by_autocast):
            return model(ids, mask)

    return step


def measure(torch, arguments, step):
    """[[(real tokens, seconds) a step] a pool], whole pools until the time is over."""
    pools = Lengths(arguments).pools()
    by_longest = {}
    if arguments.lengths:
        # Each padded length once: its kernels are made then and kept.
        drawn = itertools.islice(itertools.chain.from_iterable(pools), WARM_UP_BATCHES)
        by_longest = {max(lengths): lengths for lengths in drawn}
    for lengths in [*by_longest.values(), *(next(pools)[0] for _ in range(WARM_UP_STEPS))]:
        step(*moved(make_batch(torch, arguments, lengths), arguments.device))

    def timed(lengths):
        batch = make_batch(torch, arguments, lengths)
        start = time.perf_counter()
        # Copying a batch to a GPU is a part of the step, as it is on our side; so is waiting for its end.
        step(*moved(batch, arguments.device))
        if arguments.device == "cuda":
            torch.cuda.synchronize()
        return sum(lengths), time.perf_counter() - start

    measured, end = [], time.perf_counter() + arguments.seconds
    while time.perf_counter() < end or sum(map(len, measured)) < FEWEST_STEPS:
        measured.append([timed(lengths) for lengths in next(pools)])
    return measured


def peak_memory():
    """The high-water mark of the resident set, bytes."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


def loaded(library):
    with open("/proc/self/maps") as maps:
        return library in maps.read()


def run(torch, arguments):
    step = (training_step if arguments.mode == "train" else inference_step)(torch, arguments)
    pools = measure(torch, arguments, step)
    steps = [step for pool in pools for step in pool]
    rates = [sum(tokens for tokens, _ in pool) / sum(seconds for _, seconds in pool) for pool in pools]
    return {
        "steps": len(steps),
        "tokens_per_second": max(tokens / seconds for tokens, seconds in steps),
        "tokens_per_second_median": statistics.median(rates),
        "step_seconds_best": min(seconds for _, seconds in steps),
        "step_seconds_median": statistics.median(seconds for _, seconds in steps),
    }


def classify_cold(torch, arguments):
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    encoder = AutoModel.from_pretrained(arguments.model).eval()
    # Its weights do not matter to the time.
    head = torch.nn.Linear(encoder.config.hidden_size, 2)
    with torch.inference_mode():
        pooled = encoder(**tokenizer(arguments.sentence, return_tensors="pt")).last_hidden_state[:, 0]
        return {"class": int(head(pooled).argmax())}


def main():
    arguments = parse_arguments()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    import transformers

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    result = (classify_cold if arguments.mode == "cold" else run)(torch, arguments)
    result |= {
        "mode": arguments.mode, "engine": arguments.engine, "precision": arguments.precision,
        "threads": arguments.threads, "grouped": arguments.grouped, "peak_memory_bytes": peak_memory(),
        "preloads": [name for name in ("tcmalloc", "fakeintel") if loaded(f"lib{name}")],
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__,
                     "transformers": transformers.__version__},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
