#!/usr/bin/env python3
"""One feed-forward layer in PyTorch, run by Espalier's operator, by the published masked form, and densely.

  pip install . torch
  python bench/forest_in_torch.py [--form neuron|leaf] [--threads N] [--rounds N]

neuron   UltraFastBERT's layer, 1x11 at width 768 (4,095 neurons, 12 used). masked: a dense pass over all nodes, then
         the mask of the visited path, as the released model code computes it. dense: Linear, GELU, Linear of 4,095.
leaf     A fast feedforward layer at width 768, depth 6, leaves of 64 neurons (4,096 stored). masked: the training form
         with hard decisions, all leaves, since the package's evaluation form is a loop over tokens. dense: as above,
         of 4,096.

All in inference mode on the same new random tokens every turn, alternately, so that each finds in the caches what the
others left there; medians of --rounds turns; a ratio is the median of the turns' ratios. Outputs are compared first: the largest difference, over tokens without a
margin below 1e-4, is printed and must be below 1e-5.
"""

import argparse
import pathlib
import statistics
import sys
import time

import torch
from torch import nn

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python" / "tests"))

import espalier.torch as trees  # noqa: E402
from published import LeafTree, MaskedTrees  # noqa: E402

HIDDEN = 768


def layers(form):
    """Ours, the masked form, a dense layer of the same stored neurons, and the margins of tokens."""
    if form == "neuron":
        masked = MaskedTrees(HIDDEN, 11, 1)
        ours, neurons, margins = trees.NeuronForest.from_ultrafastbert(masked), masked.n_nodes, masked.margins
        return ours, masked, neurons, margins
    tree = LeafTree(HIDDEN, 64, 6, activation=nn.GELU())
    ours = trees.LeafForest.from_fastfeedforward(tree, output_bias=True)
    return ours, lambda x: tree.soft(x, hard=True), 64 * 64, lambda x: tree.walk(x)[1]


def seconds(call, x):
    start = time.perf_counter()
    call(x)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--form", choices=["neuron", "leaf"], default="neuron")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--batches", default="1,8,32,128,512,2048,4096")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    ours, masked, neurons, margins = layers(options.form)
    dense = nn.Sequential(nn.Linear(HIDDEN, neurons), nn.GELU(), nn.Linear(neurons, HIDDEN))
    print(f"{options.form}, {neurons} neurons of {HIDDEN}, {options.threads} thread(s), PyTorch {torch.__version__}")
    print("| tokens | ours, us | masked, us | dense, us | masked / ours | dense / ours | largest difference |")
    print("|---|---|---|---|---|---|---|")
    with torch.inference_mode():
        for batch in map(int, options.batches.split(",")):
            x = torch.randn(batch, HIDDEN)
            sure = margins(x) > 1e-4
            difference = (ours(x) - masked(x))[sure].abs().max().item() if sure.any() else 0.0
            turns = []
            for turn in range(options.rounds + 2):
                x = torch.randn(batch, HIDDEN)
                times = [seconds(layer, x) for layer in (ours, masked, dense)]
                if turn >= 2:
                    turns.append(times)
            own, mask, full = (statistics.median(t[i] for t in turns) * 1e6 for i in range(3))
            by_mask, by_full = (statistics.median(t[i] / t[0] for t in turns) for i in (1, 2))
            print(f"| {batch:,} | {own:,.0f} | {mask:,.0f} | {full:,.0f} | {by_mask:.1f} | {by_full:.1f} "
                  f"| {difference:.1e} |", flush=True)
            if difference > 1e-5:
                sys.exit(f"outputs differ by {difference} at {batch} tokens")


if __name__ == "__main__":
    main()
