#!/usr/bin/env python3
"""Static throughput of the hot loops on Arm cores, by llvm-mca: the inner loop of each product is cut out of the objects
of a cross build and run through the scheduling model of each core.

    scripts/arm_throughput.py build-aarch64

Prints a Markdown table: multiply-adds a cycle of the loop, of a row of products and nothing else (the model's limit);
and what the core's pipes could do. Nothing is measured: llvm-mca knows ports and latencies, no caches, no memory, no branches; its
models differ in care. docs/arm.md holds the table.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

# One product for each of 24 sums, as the model's own limit is found with.
PRODUCT = {4: "fmla v{}.4s, v30.4s, v31.4s", 8: "mul v{}.8h, v30.8h, v31.8h", 16: "sdot v{}.4s, v30.16b, v31.16b"}

# Name, object, how the symbol begins (demangled), multiply-adds of one 128-bit product instruction, which those are,
# and whether it needs DotProd.
LOOPS = [
    ("dense f32, 6 x 16 tile", "dense/gemm_neon.cpp.o", r"panel_tile<.*TensorType\)1>, 6ul.*GemmRows", 4, r"\bfmla\b", False),
    ("dense bf16, 4 x 16 tile", "dense/gemm_neon.cpp.o", r"panel_tile<.*TensorType\)3>, 4ul.*GemmRows", 4, r"\bfmla\b", False),
    ("dense 8-bit, 4 x 16 tile", "dense/gemm_neon.cpp.o", r"panel_tile<.*TensorType\)4>, 4ul.*GemmRows", 8, r"\bv?mul\b.*\.8h", False),
    ("dense 8-bit with sdot, 6 x 16 tile", "dense/gemm_neondot.cpp.o", r"panel_tile<.*TensorType\)4>, 6ul.*GemmRows", 16, r"\bsdot\b", True),
    ("leaves: walk of 4 tokens, f32", "forest/leaf_forest_neon.cpp.o", r"walk<.*TensorType\)1>", 4, r"\bfmla\b", False),
    ("leaves: neurons f32, 6 x 16 tile", "forest/leaf_forest_neon.cpp.o", r"panel_tile<.*TensorType\)1>, 6ul.*UpRows", 4, r"\bfmla\b", False),
    ("leaves: neurons 8-bit with sdot, 6 x 16 tile", "forest/leaf_forest_neondot.cpp.o", r"panel_tile<.*TensorType\)4>, 6ul.*UpRows", 16, r"\bsdot\b", True),
    ("neuron trees: walk of 4 tokens, f32", "forest/neuron_forest_neon.cpp.o", r"NeuronWalk<.*TensorType\)1>::walk", 4, r"\bfmla\b", False),
    ("neuron trees: outputs, f32", "forest/neuron_forest_neon.cpp.o", r"NeuronWalk<.*TensorType\)1>::outputs", 4, r"\bfmla\b", False),
    ("attention: scores and sums, f32", "attention/attention_neon.cpp.o", r"attention_head<", 4, r"\bfmla\b", False),
]
# A core's name in LLVM; its peak: 128-bit multiply-add instructions a cycle, by the number and width of its pipes.
CORES = [("cortex-a53", 1), ("cortex-a72", 2), ("cortex-a76", 2), ("neoverse-n1", 2)]
WITHOUT_DOTPROD = {"cortex-a53", "cortex-a72"}


def fail(message):
    sys.exit(f"arm_throughput: {message}")


def run(command, text=None):
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode != 0:
        fail(f"{' '.join(command)}: {done.stderr.strip()[:300]}")
    return done.stdout


def function(object_file, pattern):
    """The instructions of the function: (address, text)."""
    listing = run(["aarch64-linux-gnu-objdump", "-d", "-C", "--no-show-raw-insn", str(object_file)])
    for block in re.split(r"\n\n", listing):
        head, _, body = block.strip().partition("\n")
        if re.search(r"^[0-9a-f]+ <.*" + pattern, head):
            lines = re.findall(r"^\s*([0-9a-f]+):\t(.+)$", body, re.M)
            return [(int(address, 16), re.sub(r"\s*(//|<).*$", "", text)) for address, text in lines]
    fail(f"{object_file}: no function like {pattern}")


def hottest_loop(instructions, product):
    """Of the innermost loops (a branch back, and between the two no other one) the one with the most products."""
    loops = []
    for at, (address, text) in enumerate(instructions):
        target = re.match(r"(?:b(?:\.\w+)?|cbn?z\s+\w+,|tbn?z\s+\w+, #\d+,)\s+([0-9a-f]+)$", text)
        if target and int(target[1], 16) < address:
            loops.append((int(target[1], 16), address))
    best, most = None, 0
    for start, end in loops:
        if any(start <= other_start and other_end < end for other_start, other_end in loops):
            continue
        body = [text for address, text in instructions if start <= address < end]
        products = sum(bool(re.search(product, text)) for text in body)
        if products > most:
            best, most = body, products
    if best is None:
        fail("no loop with products")
    return best, most


def cycles(code, core):
    """Of one iteration."""
    out = run(["llvm-mca", "-mtriple=aarch64", f"-mcpu={core}", "-mattr=+dotprod", "-iterations=200"], "\n".join(code) + "\n")
    return int(re.search(r"Total Cycles:\s+(\d+)", out)[1]) / 200


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build", type=Path)
    objects = parser.parse_args().build / "kernels/CMakeFiles/espalier_kernels.dir"
    print("| inner loop | " + " | ".join(core for core, _ in CORES) + " |")
    print("|---|" + "---|" * len(CORES))
    print_rows(objects)


def print_rows(objects):
    for name, file, pattern, width, product, dotprod in LOOPS:
        body, products = hottest_loop(function(objects / file, pattern), product)
        # Branches inside are left out: a fetch that is skipped or not.
        code = [text for text in body if not re.match(r"(b|b\.\w+|cbn?z|tbn?z)\s", text)]
        cells = []
        for core, peak in CORES:
            if dotprod and core in WITHOUT_DOTPROD:
                cells.append("")
                continue
            rate = products * width / cycles(code, core)
            limit = 24 * width / cycles([PRODUCT[width].format(r) for r in range(24)], core)
            cells.append(f"{rate:.1f} of {limit:.1f}; {peak * width}")
        print(f"| {name}: {products} products in {len(body)} instructions | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
