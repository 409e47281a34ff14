#!/usr/bin/env python3
"""Sentence vectors of a table of texts, by Ray Data: Parquet in, Parquet out, a worker an actor.

  pip install . "ray[data]"
  python examples/ray/embed.py MODEL.esp INPUT OUTPUT [--workers N] [--threads N] [--address ADDRESS]

INPUT: a Parquet file or a folder of them, with a column of texts (--text) and one of ids that are all different (--id).
OUTPUT: a folder; its Parquet files have the id and `embedding`, a list of float32 of the model's width.

Every worker opens the model by its path, which must be the same on all nodes: a file is mapped, so that the workers of a
node share its pages in memory. A worker that dies is started again, and what it was at is done again (Ray's retries).
A job that dies, whole, goes on where it stopped when it is started again: Ray notes the ids of every file that it has
written in OUTPUT.done, and takes back what it was writing when it died. So every id is written once, and a job that is
finished writes nothing when it is started again. On several nodes INPUT, OUTPUT and OUTPUT.done must be shared.
"""

import argparse
import os
import pathlib
import sys

import numpy as np
import pyarrow as pa
import ray
from ray.data.checkpoint import CheckpointConfig

import espalier


class Embedder:
    """An actor: the model, and one call's working memory."""

    def __init__(self, model: str, text: str, kept: str, threads: int) -> None:
        self.model = espalier.Model(model)
        self.text, self.kept, self.threads = text, kept, threads
        print(f"worker {os.getpid()}: {model}", file=sys.stderr, flush=True)

    def __call__(self, rows: pa.Table) -> pa.Table:
        vectors = self.model.embed(rows[self.text].to_pylist(), threads=self.threads)
        width = vectors.shape[1]
        # As plain Arrow: what reads Parquet reads it, without Ray's own type of tensors.
        column = pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(vectors)), width)
        return pa.table({self.kept: rows[self.kept], "embedding": column})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("input")
    parser.add_argument("output")
    parser.add_argument("--text", default="text")
    parser.add_argument("--id", default="id")
    parser.add_argument("--workers", type=int, default=1, help="actors")
    parser.add_argument("--threads", type=int, default=1, help="of a worker, and CPUs that Ray counts for it")
    parser.add_argument("--rows", type=int, default=4096, help="of a call and of a file: what is done again after a death")
    parser.add_argument("--address", help="of a running Ray cluster; without it, one on this machine for this job")
    parser.add_argument("--object-store-mb", type=int, default=256, help="of the one on this machine")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    source, output = (str(pathlib.Path(path).resolve()) for path in (options.input, options.output))
    model = str(pathlib.Path(options.model).resolve())
    if options.address:
        ray.init(address=options.address)
    else:
        # Two CPUs that only Ray counts, for reading and writing and for looking up what is done already: these would
        # wait for ever if the workers had all.
        ray.init(
            num_cpus=options.workers * options.threads + 2,
            object_store_memory=options.object_store_mb << 20,
            include_dashboard=False,
        )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = sys.stderr.isatty()
    context.checkpoint_config = CheckpointConfig(
        options.id, output + ".done", delete_checkpoint_on_success=False, write_num_threads=1
    )
    context.checkpoint_config.checkpoint_actor_memory_bytes = 256 << 20
    rows = ray.data.read_parquet(source).select_columns([options.id, options.text])
    vectors = rows.repartition(target_num_rows_per_block=options.rows).map_batches(
        Embedder,
        fn_constructor_args=(model, options.text, options.id, options.threads),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=options.workers),
        num_cpus=options.threads,
    )
    # Vectors do not repeat: a dictionary of them or compression costs time and saves nothing.
    vectors.write_parquet(output, compression="none", use_dictionary=False)


if __name__ == "__main__":
    main()
