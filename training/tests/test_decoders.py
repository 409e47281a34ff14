"""Decoders: read as the runtime reads them, fused exactly, distilled back, and the same as `espalier fuse` makes."""
import json
import math
import struct
import subprocess

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file, save_file

from espalier_training import distil, export, fuse, llama2c
from espalier_training.__main__ import main
from espalier_training.config import load_run
from espalier_training.decoder import Decoder, DecoderShape, write
from espalier_training.decoding import fuse_decoder
from espalier_training.llama import load_llama, save_llama
from espalier_training.stream import Windows, documents_of, read_stream

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, WINDOW = 16, 24, 4, 4, 2, 32
STORY = "the old tree stands tall. a bird sings in it, and the river sees the sun.\n"


def pieces() -> list[bytes]:
    letters = [bytes([c]) for c in range(ord("a"), ord("z") + 1)] + [b" ", b".", b","]
    return [b"<unk>", b"\n<s>\n", b"\n</s>\n"] + [b"<0x%02X>" % b for b in range(256)] + letters + [b"th", b"the", b" t", b" the", b"in", b"an", b"and"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A checkpoint of llama2.c with random weights, its tokenizer, and text."""
    folder, rng = tmp_path_factory.mktemp("llama2c"), np.random.default_rng(3)
    kv, words, size = HIDDEN // HEADS * KV_HEADS, pieces(), HIDDEN // HEADS
    normal = lambda *shape: rng.standard_normal(shape) * shape[-1] ** -0.5
    norms = lambda *shape: 1 + 0.3 * rng.standard_normal(shape)
    tensors = [normal(len(words), HIDDEN), norms(LAYERS, HIDDEN), normal(LAYERS, HIDDEN, HIDDEN), normal(LAYERS, kv, HIDDEN),
               normal(LAYERS, kv, HIDDEN), normal(LAYERS, HIDDEN, HIDDEN), norms(LAYERS, HIDDEN), normal(LAYERS, INNER, HIDDEN),
               normal(LAYERS, HIDDEN, INNER), normal(LAYERS, INNER, HIDDEN), norms(HIDDEN), np.zeros(WINDOW * size)]
    (folder / "model.bin").write_bytes(struct.pack("7i", HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, len(words), WINDOW)
                                       + b"".join(t.astype(np.float32).tobytes() for t in tensors))
    (folder / "tok.bin").write_bytes(struct.pack("i", 8) + b"".join(
        struct.pack("fi", -float(i), len(w)) + w for i, w in enumerate(words)))
    (folder / "text.txt").write_text("".join(STORY[: 20 + 7 * i % 50] + "\n" + STORY + "<|end|>\n" for i in range(60)))
    llama2c.convert(str(folder / "model.bin"), str(folder / "tok.bin"), str(folder / "hf"))
    return folder


@pytest.fixture
def decoder_run(files, tmp_path):
    def make(**options):
        values = {"drop_attention": "[1, 2]", "runs": '"pairs"', "written": 512, "tokens": 4096, **options}
        path = tmp_path / "run.toml"
        path.write_text(f"""name = "run"\nteacher = "{files}/hf"\nparts = "teacher"\nfolder = "{tmp_path}/run"\ndevice = "cpu"
[text]\nfiles = ["{files}/text.txt"]\nseparator = "<|end|>"\ncache = "{tmp_path}/text.npz"\nmax_tokens = 32\nheld_out = 10\nwritten = {values["written"]}
[fuse]\ndrop_attention = {values["drop_attention"]}\nruns = {values["runs"]}
[distil]\ntokens = {values["tokens"]}\nbatch_tokens = 512\nmicro_tokens = 256\nlearning_rate = 2e-3\n""")
        return str(path)
    return make


def output(*command) -> bytes:  # a model with random weights writes any bytes
    return subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE).stdout


def test_a_llama2c_checkpoint_means_the_same_as_a_folder(files, command, tmp_path):
    output(command, "convert", files / "hf", "-o", tmp_path / "a.esp")
    output(command, "convert", files / "model.bin", "--tokenizer", files / "tok.bin", "-o", tmp_path / "b.esp")
    for arguments in (("perplexity", files / "text.txt"), ("generate", "--prompt", "the river", "--max-tokens", 20)):
        ours, theirs = (output(command, arguments[0], tmp_path / f, *arguments[1:]) for f in ("a.esp", "b.esp"))
        assert ours == theirs and ours


@torch.no_grad()
def test_perplexity_is_the_runtimes(files, command, tmp_path):
    from tokenizers import Tokenizer
    text = (STORY * 4).strip()
    (tmp_path / "text.txt").write_text(text)
    output(command, "convert", files / "hf", "-o", tmp_path / "a.esp")
    theirs = json.loads(output(command, "perplexity", tmp_path / "a.esp", tmp_path / "text.txt", "--json"))
    model = load_llama(files / "hf")
    ids = Tokenizer.from_file(str(files / "hf" / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    loss, count = 0.0, 0
    for at in range(0, len(ids) - WINDOW + 2, WINDOW - 1):  # whole windows
        window = torch.tensor([[1, *ids[at: at + WINDOW - 1]]])
        loss += float(F.cross_entropy(model.logits(model(window)[-1])[0, :-1], window[0, 1:], reduction="sum"))
        count += window.shape[1] - 1
    assert theirs["tokens"] == count
    assert math.exp(loss / count) == pytest.approx(theirs["perplexity"], rel=1e-4)


def random_decoder(layers: int) -> Decoder:
    torch.manual_seed(1)
    model = Decoder(DecoderShape(HIDDEN, HEADS, KV_HEADS, 4, WINDOW, 40, 1e-5, 10000.0, 1, 2), [INNER + i for i in range(layers)])
    with torch.no_grad():
        for layer in model.model.layers:
            layer.post_attention_layernorm.weight.uniform_(0.2, 3)
    return model


@torch.no_grad()
@pytest.mark.parametrize("silent", [False, True])
def test_a_fused_run_is_the_sum_of_its_layers(silent):
    model = random_decoder(3)
    layers = model.model.layers
    if silent:
        layers[2].post_attention_layernorm.weight[3] = 0  # nothing can be divided by it
    fused = fuse_decoder(model, [(0, 2)], [True, False, False])
    ids = torch.randint(0, 40, (2, 9))
    x = model.model.embed_tokens(ids)
    x = x + layers[0].self_attn(layers[0].input_layernorm(x), None)
    expected = x + sum(layer.mlp(layer.post_attention_layernorm(x)) for layer in layers)
    torch.testing.assert_close(fused(ids)[1], expected, rtol=1e-5, atol=1e-6)
    assert fused.ends == [3] and fused.widths == [3 * INNER + 3]


def test_a_fused_folder_comes_back(tmp_path, files):
    fused = fuse_decoder(random_decoder(4), [(0, 0), (1, 2), (3, 3)], [True, False, False, True])
    save_llama(tmp_path / "m", fused, files / "hf")
    again = load_llama(tmp_path / "m")
    assert (again.attention, again.widths, again.ends) == (fused.attention, fused.widths, fused.ends)
    assert all(torch.equal(v, again.state_dict()[n]) for n, v in fused.state_dict().items())
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, str(tmp_path / "m" / "model.safetensors"))
    assert torch.equal(load_llama(tmp_path / "m").model.embed_tokens.weight, fused.model.embed_tokens.weight)


@torch.no_grad()
def test_written_texts_have_the_models_probabilities():
    model = random_decoder(2)
    ids = write(model, 64, 12, torch.float32, seed=5)
    assert torch.equal(ids, write(model, 64, 12, torch.float32, seed=5)) and (ids[:, 0] == 1).all()
    for text in ids:
        for place in range(1, 11):
            if text[place] == 2:
                assert text[place + 1] == 1
    first = torch.softmax(model.logits(model(torch.tensor([[1]]))[-1])[0, 0], -1)
    drawn = torch.bincount(write(model, 20000, 2, torch.float32, seed=1)[:, 1], minlength=40) / 20000
    assert float((drawn - first).abs().max()) < 5 * (float(first.max()) / 20000) ** 0.5
    # The cache says what the whole sequence says.
    logits = model.logits(model(ids)[-1])
    seen = write_logits(model, ids)
    torch.testing.assert_close(seen, logits, rtol=1e-4, atol=1e-5)


def write_logits(model: Decoder, ids: torch.Tensor) -> torch.Tensor:
    from espalier_training.decoder import Cache
    caches = [Cache(model.shape, len(ids), ids.shape[1], torch.empty(0)) for _ in model.model.layers]
    return torch.cat([model.logits(model(ids[:, i: i + 1], torch.float32, caches)[-1]) for i in range(ids.shape[1])], 1)


@pytest.mark.parametrize("written", [0, 512])
def test_a_decoder_is_distilled_back(decoder_run, command, files, written):
    path = decoder_run(written=written)
    run = load_run(path)
    assert main(["fuse", path]) == 0
    before = distil.DecoderDistillation(run).evaluate()
    assert main(["distil", path]) == 0
    after = json.loads((run.path / "distil.json").read_text())
    assert after["divergence"] < 0.7 * before["divergence"] and after["same_token"] >= before["same_token"]
    assert main(["export", path, f"export.command={command}", "export.precision=f32"]) == 0
    # The runtime agrees on the fused model.
    theirs = json.loads(output(command, "perplexity", run.path / "run.esp", files / "text.txt", "--json"))
    assert math.isfinite(theirs["perplexity"])


def test_the_command_fuses_decoders_the_same(decoder_run, command, files):
    path = decoder_run(drop_attention="[1, 2, 3]", runs='"auto"')
    run = load_run(path)
    fuse.run(run)
    run.export.command, run.export.precision, run.export.checkpoint = command, "f32", "fused"
    export.run(run)
    whole, theirs = run.path / "whole.esp", run.path / "theirs.esp"
    output(command, "convert", files / "hf", "-o", whole)
    output(command, "fuse", whole, "-o", theirs, "--drop-attention", "1,2,3", "--auto", "--seconds", "0.01")
    values = [json.loads(output(command, "perplexity", f, files / "text.txt", "--json"))["perplexity"] for f in (run.path / "run.esp", theirs)]
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_streams(files, tmp_path):
    documents = list(documents_of([str(files / "text.txt")], "<|end|>"))
    assert len(documents) == 60 and documents[0].endswith(STORY.strip())
    stream = read_stream([str(files / "text.txt")], "<|end|>", files / "hf" / "tokenizer.json", 1, 2, 10, tmp_path / "c.npz")
    assert len(stream.starts) == 50 and (stream.ids[stream.starts] == 1).all() and (stream.ids == 2).sum() == 50
    texts = np.full((3, 16), 7, np.int32)
    windows = Windows(stream, texts, 16, torch.device("cpu"), seed=1)
    batch = windows.batch(4, 16 * 200)
    assert batch.shape == (200, 16) and torch.equal(batch, windows.batch(4, 16 * 200))
    assert set(batch[:, 0].tolist()) == {1, 7}
    with pytest.raises(ValueError, match="tokens or more"):
        Windows(stream, None, 100000, torch.device("cpu"), seed=1)


@pytest.mark.parametrize("spoil, words", [
    (lambda f: (f / "config.json").write_text("{}"), "num_attention_heads: missing"),
    (lambda f: (f / "tokenizer.json").unlink(), "expected tokenizer.json"),
    (lambda f: (f / "config.json").write_text((f / "config.json").read_text().replace(f'"hidden_size": {HIDDEN}', '"hidden_size": 32')), "expected")])
def test_folders_that_are_wrong_are_named(files, tmp_path, spoil, words):
    import shutil
    shutil.copytree(files / "hf", tmp_path / "hf")
    spoil(tmp_path / "hf")
    with pytest.raises(ValueError, match=words):
        load_llama(tmp_path / "hf")


def test_what_decoders_cannot_do_is_one_line(decoder_run, capsys):
    path = decoder_run()
    for override, words in (("parts=dense:4", "grown in encoders only"), ("fuse.drop_attention=[]", "found none"),
                            ("fuse.drop_attention=[9]", "0 to 3")):
        assert main(["fuse", path, override]) == 1
        assert words in capsys.readouterr().err


def test_llama2c_files_that_end_early_are_named(files, tmp_path, capsys):
    data = (files / "model.bin").read_bytes()
    for name, content, words in (("a", data[:20], "20 bytes"), ("b", data[:-4], "numbers"), ("c", data + b"1234", "expected .* numbers")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=words):
            llama2c.read_model(tmp_path / name)
    (tmp_path / "tok").write_bytes((files / "tok.bin").read_bytes()[:100])
    with pytest.raises(ValueError, match="pieces, as the model has"):
        llama2c.read_pieces(tmp_path / "tok", len(pieces()))


def test_a_study_fuses_students_alone(tmp_path):
    from espalier_training.study import load_study
    (tmp_path / "s.toml").write_text('teacher = "x"\n[fuse]\ndrop_attention = [1]\n[[run]]\nname="a"\nparts="none"\n')
    teacher, student = load_study(str(tmp_path / "s.toml"), [])[0]
    assert teacher.is_teacher and student.fuses
