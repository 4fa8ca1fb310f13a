"""What hloc has to reach, workload by workload.

A goal is a ratio, hloc's time by the best peer's in the same rounds: `bar` is what the project is held to, `stretch`
what the machine's limits and hand-written kernels say is there. Peers are XLA, torch eager and compiled, IREE and
NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    bar: float
    stretch: float

    def verdict(self, ratio: float) -> str:
        """`stretch`, `bar` or `missed`."""
        if ratio <= self.stretch:
            return "stretch"
        return "bar" if ratio <= self.bar else "missed"


_TABLE = """
softmax_3           0.12  0.05
add_3               0.6   0.3
tenargs_3           0.15  0.07
chain10_1k          0.1   0.05
chain10_64k         0.4   0.25
chain10_1m          0.85  0.7
chain10_16m         0.6   0.45
exp_1m              1.0   0.85
tanh_1m             0.85  0.7
erf_1m              0.75  0.6
log_1m              0.7   0.55
sin_1m              0.85  0.65
log1p_1m            0.5   0.35
sqrt_1m             0.9   0.75
pow_1m              0.85  0.65
gelu_1m             0.5   0.4
rowsum_4096         1.0   0.8
colsum_4096         0.6   0.4
fullsum_16m         0.8   0.5
argmax_4096         0.3   0.2
rowsum_64x512       0.4   0.2
softmax_4096x4096   0.5   0.33
layernorm_4096x4096 0.5   0.33
softmax_64x512      0.5   0.3
layernorm_64x512    0.5   0.3
transpose_4096      0.5   0.33
transpose_021       0.55  0.35
transpose_0213      0.9   0.7
concat_pad          0.6   0.4
gemm_16             0.7   0.5
gemm_32             0.7   0.5
gemm_64             0.7   0.5
gemm_128            0.7   0.6
gemm_256            0.95  0.9
gemm_512            1.0   0.92
gemm_1024           1.0   0.92
gemm_2048           1.0   0.92
gemm_1x1024x4096    1.0   0.9
gemm_8x1024x4096    0.7   0.5
gemm_64x1024x4096   0.7   0.55
gemm_nt_512         0.85  0.8
gemm_tn_512         1.0   0.92
bgemm_64x64         0.7   0.55
gemm_f64_512        1.0   0.92
gemm_bf16_1024      0.45  0.35
gemm_int8_1024      0.9   0.75
gemm_bias_gelu      0.7   0.55
conv3x3_64_56       0.95  0.8
conv3x3_256_14      0.95  0.8
conv3x3_64_56_b8    0.95  0.8
conv1x1_256_56      0.95  0.8
conv7x7_stem        0.95  0.8
conv3x3_dw_56       0.6   0.35
attn_512            0.75  0.6
attn_2048           0.75  0.6
lstm_128            0.5   0.3
while_1e6           0.75  0.68
scan_small_10000    0.75  0.68
sort_1m             1.0   0.6
argsort_1m          0.15  0.08
topk_64x16k         0.3   0.15
scatter_add_1m      0.9   0.6
gather_1m           0.9   0.6
embed_8192x256      0.9   0.6
cumsum_1m           0.5   0.3
cumsum_1024x1024    0.5   0.3
random_bits_1m      0.15  0.09
random_normal_1m    0.25  0.15
fft_1m              1.3   1.0
fft_1024x1024       1.2   1.0
cholesky_512        1.0   0.6
trisolve_512        1.0   0.7
mlp_train_64        0.7   0.5
gpt_train           0.75  0.5
gpt_fwd             0.85  0.6
resnet18_b1         0.9   0.7
"""

GOALS: dict[str, Goal] = {
    name: Goal(float(bar), float(stretch)) for name, bar, stretch in map(str.split, _TABLE.split("\n")[1:-1])
}

MEAN_OF_BEST = Goal(0.65, 0.45)
"""Of the geometric mean over the workloads, against the best peer of each."""

MEAN_OF_XLA = Goal(0.28, 0.2)
"""The same, against XLA."""

STRETCHED_SHARE = 1 / 3
"""Of the workloads, at their stretch."""

CORPUS_MEAN = 0.5
CORPUS_SHARE = 0.95
"""Over the programs of a corpus, against XLA: the geometric mean, and the share of programs at most 1.0."""

COLD_SECONDS = 0.35
COLD_MEGABYTES = 110.0
"""From the start of a process to the first result of a softmax, and its memory at the peak."""

COMPILE_MEDIAN = 0.5
COMPILE_OF_LARGE = 1.0
"""Compile time by XLA's: the median over a corpus; GPT's training step and ResNet-18."""

LARGE_PROGRAMS = ("gpt_train_step", "resnet18_inference")

CACHED = 0.15
"""Time to get a program from a warm cache by the time to compile it."""
