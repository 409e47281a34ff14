#!/usr/bin/env python3
"""Static throughput of the hot loops on Arm cores, by llvm-mca: the inner loop of each product is cut out of the objects
of a cross build and run through the scheduling model of each core.

    scripts/arm_throughput.py build-aarch64

Prints two Markdown tables, of cores without and with products of small matrices: multiply-adds a cycle of the loop, of a
row of its products and nothing else (the model's limit); and what the core's pipes could do. Nothing is measured: llvm-mca
knows ports and latencies, no caches, no memory, no branches; its models differ in care. docs/arm.md holds the tables. Debian
has llvm-mca 14 (llvm) and 19 (llvm-19), which has models of more cores and is taken where it is installed.
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

# Instructions that multiply and add: (of what a line of them looks like, multiply-adds, one that writes register {}).
PRODUCTS = {
    "fmla": (r"\bfmla\b.*\.4s", 4, "fmla v{}.4s, v30.4s, v31.4s"),
    "mul": (r"\bv?mul\b.*\.8h", 8, "mul v{}.8h, v30.8h, v31.8h"),
    "smull": (r"\bsmull2?\b", 8, "smull v{}.8h, v30.8b, v31.8b"),
    "sdot": (r"\bsdot\b", 16, "sdot v{}.4s, v30.16b, v31.16b"),
    "bfdot": (r"\bbfdot\b", 8, "bfdot v{}.4s, v30.8h, v31.8h"),
    "bfmmla": (r"\bbfmmla\b", 16, "bfmmla v{}.4s, v30.8h, v31.8h"),
    "smmla": (r"\bsmmla\b", 32, "smmla v{}.4s, v30.16b, v31.16b"),
}
NEEDS = {"sdot": "dotprod", "bfdot": "bf16", "bfmmla": "bf16", "smmla": "i8mm"}

TILE = r"panel_tile<.*TensorType\){}>, {}ul.*{}"
F32, BF16, S8 = 1, 3, 4  # TensorType
# Name, object, how the symbol begins (demangled), product.
LOOPS = [
    ("dense f32, 6 x 16 tile", "dense/gemm_neon", TILE.format(F32, 6, "GemmRows"), "fmla"),
    ("dense bf16, 4 x 16 tile", "dense/gemm_neon", TILE.format(BF16, 4, "GemmRows"), "fmla"),
    ("dense 8-bit, 4 x 16 tile", "dense/gemm_neon", TILE.format(S8, 4, "GemmRows"), "mul"),
    ("dense 8-bit, sdot, 6 x 16 tile", "dense/gemm_neondot", TILE.format(S8, 6, "GemmRows"), "sdot"),
    ("leaves: walk of 4 tokens, f32", "forest/leaf_forest_neon", r"walk<.*TensorType\)1>", "fmla"),
    ("leaves: walk of 4 tokens, bf16", "forest/leaf_forest_neon", r"walk(_all<.*TensorType\)3, .*|<.*)TensorType\)3>", "fmla"),
    ("leaves: neurons f32, 6 x 16 tile", "forest/leaf_forest_neon", TILE.format(F32, 6, "UpRows"), "fmla"),
    ("leaves: neurons bf16, 4 x 16 tile", "forest/leaf_forest_neon", TILE.format(BF16, 4, "UpRows"), "fmla"),
    ("leaves: neurons 8-bit, 4 x 16 tile", "forest/leaf_forest_neon", TILE.format(S8, 4, "UpRows"), "mul"),
    ("leaves: neurons 8-bit, sdot, 6 x 16 tile", "forest/leaf_forest_neondot", TILE.format(S8, 6, "UpRows"), "sdot"),
    ("neuron trees: walk of 4 tokens, f32", "forest/neuron_forest_neon", r"NeuronWalk<.*TensorType\)1>::run", "fmla"),
    ("neuron trees: walk of 4 tokens, bf16", "forest/neuron_forest_neon", r"NeuronWalk<.*TensorType\)3>::run", "fmla"),
    ("neuron trees: walk of 4 tokens, 8-bit", "forest/neuron_forest_neon", r"NeuronWalk<.*TensorType\)4>::run", "smull"),
    ("neuron trees: walk of 4 tokens, 8-bit, sdot", "forest/neuron_forest_neondot", r"NeuronWalk<.*TensorType\)4>::run", "sdot"),
    ("neuron trees: outputs, f32", "forest/neuron_forest_neon", r"NeuronCall<.*TensorType\)1>::(add_rows<1ul>|outputs\()", "fmla"),
    ("neuron trees: outputs, bf16", "forest/neuron_forest_neon", r"NeuronCall<.*TensorType\)3>::(add_rows<1ul>|outputs\()", "fmla"),
    ("neuron trees: outputs, 8-bit", "forest/neuron_forest_neon", r"NeuronCall<.*TensorType\)4>::(add_rows<1ul>|outputs\()", "fmla"),
    ("neuron trees: outputs, 8-bit, sdot", "forest/neuron_forest_neondot", r"NeuronCall<.*TensorType\)4>::(add_rows<1ul>|outputs\()", "sdot"),
    ("attention: scores and sums, f32", "attention/attention_neon", r"attend_block<", "fmla"),
]
MATRIX_LOOPS = [
    *(entry for entry in LOOPS if re.search(r"bf16|sdot", entry[0])),
    ("dense bf16, bfmmla, 6 x 16 tile", "dense/gemm_neonbf16", TILE.format(BF16, 6, "GemmRows"), "bfmmla"),
    ("dense bf16, bfdot, 1 x 16 tile", "dense/gemm_neonbf16", TILE.format(BF16, 1, "GemmRows"), "bfdot"),
    ("dense 8-bit, smmla, 6 x 16 tile", "dense/gemm_neoni8mm", TILE.format(S8, 6, "GemmRows"), "smmla"),
    ("leaves: walk of 4 tokens, bf16, bfdot", "forest/leaf_forest_neonbf16", r"walk(_all<.*TensorType\)3, .*|<.*)TensorType\)3>", "bfdot"),
    ("leaves: neurons bf16, bfmmla, 6 x 16 tile", "forest/leaf_forest_neonbf16", TILE.format(BF16, 6, "UpRows"), "bfmmla"),
    ("leaves: neurons bf16, bfmmla, 3 x 16 tile", "forest/leaf_forest_neonbf16", TILE.format(BF16, 3, "UpRows"), "bfmmla"),
    ("leaves: neurons bf16, bfdot, 2 x 16 tile", "forest/leaf_forest_neonbf16", TILE.format(BF16, 2, "UpRows"), "bfdot"),
    ("leaves: neurons 8-bit, smmla, 6 x 16 tile", "forest/leaf_forest_neoni8mm", TILE.format(S8, 6, "UpRows"), "smmla"),
    ("leaves: neurons 8-bit, smmla, 3 x 16 tile", "forest/leaf_forest_neoni8mm", TILE.format(S8, 3, "UpRows"), "smmla"),
    ("leaves: neurons 8-bit, sdot, 3 x 16 tile", "forest/leaf_forest_neondot", TILE.format(S8, 3, "UpRows"), "sdot"),
    ("leaves: neurons 8-bit, sdot, 2 x 16 tile", "forest/leaf_forest_neoni8mm", TILE.format(S8, 2, "UpRows"), "sdot"),
    ("neuron trees: walk of 4 tokens, bf16, bfdot", "forest/neuron_forest_neonbf16", r"NeuronWalk<.*TensorType\)3>::run", "bfdot"),
    ("neuron trees: outputs, bf16, bfdot", "forest/neuron_forest_neonbf16", r"NeuronCall<.*TensorType\)3>::(add_rows<1ul>|outputs\()", "bfdot"),
]
# A core's name in LLVM; its peak: 128-bit multiply-add instructions a cycle, by the number and width of its pipes; what it has.
CORES = [("cortex-a53", 1, ""), ("cortex-a72", 2, ""), ("cortex-a76", 2, "dotprod"), ("neoverse-n1", 2, "dotprod")]
MATRIX_CORES = [("cortex-a510", 2, "dotprod bf16 i8mm"), ("neoverse-n2", 2, "dotprod bf16 i8mm")]
MCA = shutil.which("llvm-mca-19") or "llvm-mca"


def fail(message):
    sys.exit(f"arm_throughput: {message}")


def run(command, text=None):
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode != 0:
        fail(f"{' '.join(command)}: {done.stderr.strip()[:300]}")
    return done.stdout


def functions(object_file, pattern):
    """The instructions of each function: (address, text)."""
    listing = run(["aarch64-linux-gnu-objdump", "-d", "-C", "--no-show-raw-insn", str(object_file)])
    found = []
    for block in re.split(r"\n\n", listing):
        head, _, body = block.strip().partition("\n")
        if re.search(r"^[0-9a-f]+ <.*" + pattern, head):
            lines = re.findall(r"^\s*([0-9a-f]+):\t(.+)$", body, re.M)
            found.append([(int(address, 16), re.sub(r"\s*(//|<).*$", "", text)) for address, text in lines])
    return found or fail(f"{object_file}: no function like {pattern}")


def hottest_loop(instructions, product):
    """Of the innermost loops (a branch back, and between the two no other one) the one with the most products; and how many
    those are."""
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
    return best, most


def cycles(code, core):
    """Of one iteration."""
    out = run([MCA, "-mtriple=aarch64", f"-mcpu={core}", "-mattr=+dotprod,+bf16,+i8mm", "-iterations=200"], "\n".join(code) + "\n")
    return int(re.search(r"Total Cycles:\s+(\d+)", out)[1]) / 200


def print_table(objects, loops, cores):
    print("| inner loop | " + " | ".join(core for core, _, _ in cores) + " |")
    print("|---|" + "---|" * len(cores))
    for name, file, pattern, product in loops:
        looks_like, width, alone = PRODUCTS[product]
        found = [hottest_loop(code, looks_like) for code in functions(objects / f"{file}.cpp.o", pattern)]
        body, products = max(found, key=lambda loop: loop[1])
        if products == 0:
            fail(f"{name}: no loop with {product} in {pattern}")
        # Branches inside are left out: a fetch that is skipped or not.
        code = [text for text in body if not re.match(r"(b|b\.\w+|cbn?z|tbn?z)\s", text)]
        cells = []
        for core, peak, extensions in cores:
            if product in NEEDS and NEEDS[product] not in extensions:
                cells.append("")
                continue
            rate = products * width / cycles(code, core)
            limit = 24 * width / cycles([alone.format(r) for r in range(24)], core)
            cells.append(f"{rate:.1f} of {limit:.1f}; {peak * width}")
        print(f"| {name}: {products} products in {len(body)} instructions | " + " | ".join(cells) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build", type=Path)
    objects = parser.parse_args().build / "kernels/CMakeFiles/espalier_kernels.dir"
    print_table(objects, LOOPS, CORES)
    print()
    print_table(objects, MATRIX_LOOPS, MATRIX_CORES)


if __name__ == "__main__":
    main()
