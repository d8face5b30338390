"""What scripts/kernel-report says between its tables."""

HEAD = """# The CUDA kernels, counted

Made by `scripts/kernel-report` ({date}, {commit}); do not edit. Counts and bounds, not times: times on hardware are in
[performance.md](performance.md). The software GPU executes the PTX that NVRTC makes and counts what it does; it has no cache
and no clock. Registers and spills are what the assembler says of the machine code.

- **MB**: all sectors of 32 bytes that loads, asynchronous copies and stores ask for, as if there were no cache. **× minimum**:
  by what the op cannot do without: each input read once, each output written once, weights once a block.
- **Efficiency**: bytes that lanes asked for, by the bytes of the sectors. **Wavefronts**: passes through shared memory, by the
  fewest that the width of the accesses allows.
- **Bound**: the larger of the minimum's bytes (all bytes, where no minimum is given) by the memory's bandwidth and the
  products by the tensor cores' rate: 2.04 TB/s and 312 TFLOP/s (A100), 3.35 TB/s and 989 TFLOP/s (H100)."""
COUNTED = "Numbers are bf16, all checks are on, and none has found anything (`examples/kernels.rs` has the sizes)."
PEER = """Where ours need more: cross-entropy reads the logits once in each direction, the fused kernel of Triton reads them twice in
one; tiles of 64 × 64 and 64 × 128, chosen because they fill an H100, ask for more bytes than those of 128 × 128; attention's log-sum-exps lie
token by token, so that each is written as a sector of its own (0.2 MB); its backward pass has two kernels without atomics, which
make the scores twice; the sums of layer norm's partial sums have 3 % more instructions for half of the bytes."""
STEP = """`manyhead bench train`: forward, backward, the gradients' norm, AdamW, dropout 0.1, bf16; the launches of one step. Bytes are
those of all sectors that are asked for, so the bound of a product is one for tiles without a cache: a chip's L2 cache serves a
part of them. Counted are an encoder of one layer and one of two; each further layer adds what the second does, since all
its launches have the same shapes. (An encoder of four layers counted whole has the same launches, products and bytes in every
kernel, but for 32 bytes of `clip`'s 19,136, where a number of partial sums is rounded up.)"""
WHERE = """No step can take less than its products at the tensor cores' full rate and all else at the memory's: that much the counts
promise (`together`; attention is among the products). How much more it takes they cannot say: a product asks for its operands
once for each tile, and the cache serves what it can of that, between all and nothing (`all by bytes`); and there are launches,
latency, and `mma.sync`, which reaches about two thirds of the rate that Hopper's own instructions have. Measured:
[performance.md](performance.md), one H100, 2026-11-26."""
# From docs/performance.md: milliseconds of a step, sequences a second.
MEASURED = {
    "MiniLM, 32 sequences of 128 tokens": "2.67 ms, 12,000 sequences/s",
    "BERT-base, 32 sequences of 128 tokens": "9.85 ms, 3,250 sequences/s",
}
PUBLISHED = """- MiniLM is not bound by arithmetic: its products take a tenth of the measured time. What it waits for is memory (the
  optimizer's 30 bytes a parameter above all, whatever the batch), and 170 launches.
- BERT-base's time lies below what its bytes would take without a cache, which serves at least a third of what products ask
  for. They are where the time is: better use of the cache and `wgmma` would help first, then the optimizer's bytes.
- Published, NVIDIA: BERT-large, SQuAD fine-tuning, sequences of 384, one A100, mixed precision: 110 sequences/s, 1.9 GFLOP a
  token, 80 TFLOP/s, a quarter of the card's 312. BERT-base of 32 × 128 has 0.50 GFLOP a token: by the bounds above at
  most 56 % of an H100's 989 TFLOP/s; measured are 206, a fifth. (At a length of 384: 227, docs/performance.md.)
- Published, LightSeq: 1.6 to 2.1 times PyTorch in training, by fused kernels, on cards where PyTorch is bound by the device.
  Counts cannot say by how much another program is slower; measured are 2.5 to 5.7 times, in part PyTorch waiting for its host."""
