import lzma
import math
import warnings
from pathlib import Path

import numpy as np
import pytest

from espalier_training import glue
from espalier_training.glue import TASKS

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "glue"


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode(encoding)
    path.write_bytes(lzma.compress(data) if path.suffix == ".xz" else data)
    return path


def logits(labels: list[int], classes: int = 2) -> np.ndarray:
    return np.eye(classes)[labels]


# Reading.


def test_a_single_sentence_file(tmp_path):
    rows = glue.read(write(tmp_path / "dev.tsv", "sentence\tlabel\nso good\t1\nbad\t0\n"), TASKS["sst2"])
    assert rows == glue.Examples(["so good", "bad"], None, [1.0, 0.0])
    assert len(rows) == 2


def test_columns_go_by_name(tmp_path):
    text = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\ta\tb\n0\t7\t8\tc\td\n"
    rows = glue.read(write(tmp_path / "train.tsv.xz", text), TASKS["mrpc"])
    assert rows == glue.Examples(["a", "c"], ["b", "d"], [1.0, 0.0])


def test_cola_has_no_header(tmp_path):
    rows = glue.read(write(tmp_path / "dev.tsv", "gj04\t1\t\tShe ran.\ngj04\t0\t*\tRan she.\n"), TASKS["cola"])
    assert rows == glue.Examples(["She ran.", "Ran she."], None, [1.0, 0.0])


def test_byte_order_mark_carriage_returns_and_no_last_newline(tmp_path):
    text = "\ufeffsentence\tlabel\r\none\t1\r\ntwo\t0"
    rows = glue.read(write(tmp_path / "dev.tsv", text), TASKS["sst2"])
    assert rows == glue.Examples(["one", "two"], None, [1.0, 0.0])


def test_quotes_and_other_separators_are_text(tmp_path):
    text = 'sentence\tlabel\n"an open quote\t1\na\u2028b\x0bc\rd\t0\n'
    rows = glue.read(write(tmp_path / "dev.tsv", text), TASKS["sst2"])
    assert rows.first == ['"an open quote', "a\u2028b\x0bc\rd"]


@pytest.mark.parametrize("text, index", [("neutral", 1), ("CONTRADICTION", 2), ("0", 0)])
def test_labels_by_name_and_by_index(tmp_path, text, index):
    rows = glue.read(write(tmp_path / "t.tsv", f"sentence1\tsentence2\tgold_label\na\tb\t{text}\n"), TASKS["mnli"])
    assert rows.labels == [index]


def test_scores(tmp_path):
    rows = glue.read(write(tmp_path / "t.tsv", "sentence1\tsentence2\tscore\na\tb\t3.800\n"), TASKS["stsb"])
    assert rows.labels == [3.8]


@pytest.mark.parametrize(
    "task, text, message",
    [
        ("sst2", "", ":1: expected one column 'sentence' in the header of a sst2 file, got nothing"),
        ("sst2", "text\tlabel\na\t1\n", ":1: expected one column 'sentence' .*, got text, label"),
        ("sst2", "sentence\tlabel\n", ": expected at least one row with a label, got none"),
        ("sst2", "sentence\tlabel\na\t1\nb\n", ":3: expected 2 columns, got 1"),
        ("sst2", "sentence\tlabel\na\t1\nb\tc\t0\n", ":3: expected 2 columns, got 3"),
        ("sst2", "sentence\tlabel\na\t2\n", ":2: expected a label \\(0 negative, 1 positive\\), got '2'"),
        ("sst2", "sentence\tlabel\na\t-1\n", ":2: expected a label .*, got '-1'"),
        ("sst2", "sentence\tlabel\na\t\n", ":2: expected a label .*, got ''"),
        ("rte", "sentence1\tsentence2\tlabel\na\tb\tmaybe\n", ":2: expected a label .*, got 'maybe'"),
        ("stsb", "sentence1\tsentence2\tscore\na\tb\t5.5\n", ":2: expected a score from 0 to 5, got '5.5'"),
        ("stsb", "sentence1\tsentence2\tscore\na\tb\tnan\n", ":2: expected a score from 0 to 5, got 'nan'"),
        ("stsb", "sentence1\tsentence2\tscore\na\tb\thigh\n", ":2: expected a score from 0 to 5, got 'high'"),
    ],
)
def test_bad_lines_are_named(tmp_path, task, text, message):
    with pytest.raises(ValueError, match=f"bad.tsv{message}$"):
        glue.read(write(tmp_path / "bad.tsv", text), TASKS[task])


def test_bytes_that_are_not_utf8_are_named(tmp_path):
    path = write(tmp_path / "bad.tsv", "sentence\tlabel\ncaf\xe9\t1\n", "latin-1")
    with pytest.raises(ValueError, match="bad.tsv:2: expected UTF-8 text, got byte 0xe9"):
        glue.read(path, TASKS["sst2"])


def test_a_cut_or_false_xz_file_is_named(tmp_path):
    path = write(tmp_path / "train.tsv.xz", "sentence\tlabel\n" + "a b c\t1\n" * 1000)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match="train.tsv.xz: expected a whole xz file"):
        glue.read(path, TASKS["sst2"])
    path.write_bytes(b"no xz")
    with pytest.raises(ValueError, match="train.tsv.xz: expected a whole xz file"):
        glue.read(path, TASKS["sst2"])


# Loading.


def test_training_rows_without_a_label_are_skipped_and_counted(tmp_path):
    text = "sentence1\tsentence2\tgold_label\na\tb\tneutral\nc\td\t-\ne\tf\t\ng\th\n"
    write(tmp_path / "MNLI/train_partial_1k.tsv.xz", text)
    write(tmp_path / "MNLI/dev_matched.tsv", "sentence1\tsentence2\tgold_label\nx\ty\tentailment\n")
    write(tmp_path / "MNLI/dev_mismatched.tsv", "not read")
    train, dev = glue.load(tmp_path, TASKS["mnli"])
    assert train == glue.Examples(["a"], ["b"], [1.0], skipped=3)
    assert dev == glue.Examples(["x"], ["y"], [0.0])


def test_an_unknown_label_in_training_rows_is_an_error(tmp_path):
    path = write(tmp_path / "SST-2/train.tsv", "sentence\tlabel\na\tgreat\n")
    with pytest.raises(ValueError, match=":2: expected a label"):
        glue.read(path, TASKS["sst2"], skip_unlabelled=True)


def test_a_development_row_without_a_label_is_an_error(tmp_path):
    write(tmp_path / "MNLI/dev_matched.tsv", "sentence1\tsentence2\tgold_label\nx\ty\t-\n")
    with pytest.raises(ValueError, match="dev_matched.tsv:2: expected a label"):
        glue.load(tmp_path, TASKS["mnli"])


def test_no_training_file(tmp_path):
    write(tmp_path / "QNLI/dev.tsv", "question\tsentence\tlabel\nq\ts\tnot_entailment\n")
    train, dev = glue.load(tmp_path, TASKS["qnli"])
    assert train is None
    assert dev == glue.Examples(["q"], ["s"], [1.0])


def test_no_file_at_all(tmp_path):
    with pytest.raises(FileNotFoundError, match="QNLI: expected train"):
        glue.load(tmp_path, TASKS["qnli"])


def test_without_a_dev_file_a_tenth_is_split_off(tmp_path):
    header = "id\tquestion1\tquestion2\tis_duplicate\n"
    lines = [f"{i}\tq{i}\tr{i % 400}\t{i % 2}\n" for i in range(2000)]
    path = write(tmp_path / "QQP/train.tsv", header + "".join(lines) + "0\tq\tr\t\n")
    train, dev = glue.load(tmp_path, TASKS["qqp"])
    assert len(train) + len(dev) == 2000
    assert 150 < len(dev) < 250
    assert train.skipped == 1
    rows = set(zip(train.first, train.second, train.labels)) | set(zip(dev.first, dev.second, dev.labels))
    assert rows == {(f"q{i}", f"r{i % 400}", i % 2) for i in range(2000)}

    write(path, header + "".join(reversed(lines)))
    again = glue.load(tmp_path, TASKS["qqp"])[1]
    assert set(again.first) == set(dev.first)


@pytest.mark.parametrize(
    "name, train_rows, dev_rows",
    [
        ("sst2", 67349, 872),
        ("cola", 8551, 1043),
        ("mrpc", 3668, 408),
        ("stsb", 5749, 1500),
        ("rte", 2490, 277),
        ("qnli", None, 5463),
        ("mnli", 12988, 9815),
        ("wnli", 635, 71),
    ],
)
def test_the_real_files(name, train_rows, dev_rows):
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED}")
    train, dev = glue.load(SHARED, TASKS[name])
    assert (train and len(train)) == train_rows
    assert len(dev) == dev_rows
    assert all((rows.second is not None) == TASKS[name].pair for rows in (train, dev) if rows)


def test_the_real_qqp_file_is_split():
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED}")
    train, dev = glue.load(SHARED, TASKS["qqp"])
    assert len(train) + len(dev) + train.skipped == 23496
    assert 0.09 < len(dev) / 23496 < 0.11


# Metrics.


def test_tasks():
    assert list(TASKS) == ["sst2", "cola", "mrpc", "stsb", "rte", "qnli", "qqp", "mnli", "wnli"]
    assert all(name == task.name for name, task in TASKS.items())
    assert [TASKS[name].outputs for name in ("sst2", "mnli", "stsb")] == [2, 3, 1]


@pytest.mark.parametrize(
    "name, keys",
    [("sst2", ["accuracy"]), ("cola", ["matthews"]), ("mrpc", ["accuracy", "f1"]), ("stsb", ["pearson", "spearman"]),
     ("rte", ["accuracy"]), ("qnli", ["accuracy"]), ("qqp", ["accuracy", "f1"]), ("mnli", ["accuracy"]),
     ("wnli", ["accuracy"])],
)
def test_each_task_has_its_official_metrics(name, keys):
    task = TASKS[name]
    outputs = np.arange(4.0) if task.regression else logits([0, 1, 1, 0], task.outputs)
    result = glue.metrics(task, outputs, [0, 1, 1, 1])
    assert list(result) == keys
    assert task.headline in result
    assert all(type(value) is float for value in result.values())


def test_accuracy_by_hand():
    assert glue.metrics(TASKS["mnli"], logits([0, 1, 2, 2], 3), [0, 1, 2, 0]) == {"accuracy": 0.75}


def test_f1_by_hand():
    # Label 1: 2 right, 1 wrongly given, 1 missed.
    result = glue.metrics(TASKS["mrpc"], logits([1, 1, 1, 0, 0]), [1, 1, 0, 1, 0])
    assert result == {"accuracy": 0.6, "f1": pytest.approx(2 / 3)}


def test_matthews_by_hand():
    # tp 2, tn 1, fp 1, fn 1: (2 - 1) / sqrt(3 * 3 * 2 * 2).
    result = glue.metrics(TASKS["cola"], logits([1, 1, 1, 0, 0]), [1, 1, 0, 1, 0])
    assert result == {"matthews": pytest.approx(1 / 6)}
    assert glue.metrics(TASKS["cola"], logits([0, 1]), [1, 0]) == {"matthews": -1.0}


def test_correlations_by_hand():
    result = glue.metrics(TASKS["stsb"], np.array([1.0, 2.0, 3.0, 10.0]), [1, 3, 2, 4])
    # Deviations (-3, -2, -1, 6) and (-1.5, 0.5, -0.5, 1.5); ranks (1, 2, 3, 4) and (1, 3, 2, 4).
    assert result == {"pearson": pytest.approx(13 / math.sqrt(50 * 5)), "spearman": pytest.approx(0.8)}


def test_spearman_gives_ties_their_average_rank():
    # Ranks (1.5, 1.5, 3) and (1, 2, 3).
    result = glue.metrics(TASKS["stsb"], np.array([[2.0], [2.0], [7.0]]), [1, 2, 3])
    assert result["spearman"] == pytest.approx(1.5 / math.sqrt(1.5 * 2))


def test_undefined_metrics_are_zero_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert glue.metrics(TASKS["cola"], logits([1, 1, 1]), [0, 1, 1]) == {"matthews": 0.0}
        assert glue.metrics(TASKS["mrpc"], logits([0, 0]), [0, 0]) == {"accuracy": 1.0, "f1": 0.0}
        # The mean of three 0.1 is not 0.1.
        assert glue.metrics(TASKS["stsb"], np.full(3, 0.1), [1, 2, 3]) == {"pearson": 0.0, "spearman": 0.0}
        assert glue.metrics(TASKS["stsb"], np.ones(1), [3]) == {"pearson": 0.0, "spearman": 0.0}


def test_outputs_that_do_not_fit_are_an_error():
    with pytest.raises(ValueError, match=r"sst2: expected a row of 2 outputs for each label, got outputs \[3, 3\]"):
        glue.metrics(TASKS["sst2"], np.zeros((3, 3)), [0, 1, 1])
    with pytest.raises(ValueError, match=r"got outputs \[2\] and labels \[3\]"):
        glue.metrics(TASKS["stsb"], np.zeros(2), [0, 1, 1])
    with pytest.raises(ValueError, match=r"got outputs \[0, 2\] and labels \[0\]"):
        glue.metrics(TASKS["sst2"], np.zeros((0, 2)), [])
    with pytest.raises(ValueError, match="sst2: expected finite outputs"):
        glue.metrics(TASKS["sst2"], np.array([[0.0, math.nan]]), [1])


def test_against_scikit_learn():
    theirs = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(1)
    for _ in range(20):
        predicted, expected = random.integers(0, 2, (2, 57))
        ours = glue.metrics(TASKS["qqp"], logits(predicted), expected)
        assert ours["accuracy"] == pytest.approx(theirs.accuracy_score(expected, predicted))
        assert ours["f1"] == pytest.approx(theirs.f1_score(expected, predicted))
        ours = glue.metrics(TASKS["cola"], logits(predicted), expected)
        assert ours["matthews"] == pytest.approx(theirs.matthews_corrcoef(expected, predicted))


def test_against_scipy():
    theirs = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(2)
    for _ in range(20):
        expected = random.integers(0, 26, 83) / 5
        predicted = np.round(expected + random.normal(size=83), 1)
        ours = glue.metrics(TASKS["stsb"], predicted, expected)
        assert ours["pearson"] == pytest.approx(theirs.pearsonr(predicted, expected)[0])
        assert ours["spearman"] == pytest.approx(theirs.spearmanr(predicted, expected)[0])
