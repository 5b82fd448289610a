#!/usr/bin/env python3
"""What PyTorch reaches on this GPU at the shapes that Lapidary's prefill is measured at: gpu_rates.py

Matrices in bf16 by torch.matmul, causal attention with heads of 256 by scaled_dot_product_attention's cuDNN back end,
both with operands that do not fit the L2 cache together. Prints one line a case: shape, microseconds, TFLOP/s.
"""
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

SHAPES = [(5376, 16384), (5376, 43008), (21504, 5376), (8192, 5376)]
ROWS = [512, 2048, 4096]
HEADS, KV_HEADS, DIM = 16, 8, 256


def seconds(run):
    """Median of 7 timings of 4 calls, in seconds a call."""
    for _ in range(3):
        run()
    times = []
    for _ in range(7):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(4):
            run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 4e3)
    return sorted(times)[3]


def random(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def main():
    if not torch.cuda.is_available():
        sys.exit("no GPU")
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
    for k, m in SHAPES:
        weights = random(m, k)
        for rows in ROWS:
            x = random(rows, k)
            t = seconds(lambda: x @ weights.T)
            print("matmul %5d -> %5d, %4d rows  %8.1f us %5.0f TFLOP/s" % (k, m, rows, 1e6 * t,
                                                                          2e-12 * rows * k * m / t))
    for rows in (4096, 8192):
        q, k, v = random(1, HEADS, rows, DIM), random(1, KV_HEADS, rows, DIM), random(1, KV_HEADS, rows, DIM)
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            t = seconds(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True,
                                                                                 enable_gqa=True))
        print("attention %d causal, %d rows  %8.1f us %5.0f TFLOP/s" % (DIM, rows, 1e6 * t,
                                                                       2e-12 * rows * (rows + 1) * HEADS * DIM / t))


if __name__ == "__main__":
    main()
