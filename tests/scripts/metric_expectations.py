#!/usr/bin/env python3
"""Writes tests/data/glue/metrics.json: GLUE metrics of random cases as scikit-learn and scipy compute them.

    python3 -m pip install numpy scipy scikit-learn
    python3 tests/scripts/metric_expectations.py tests/data/glue/metrics.json

The cases are seeded. null stands for NaN, also where scipy raises because there are fewer than two rows.
"""

import json
import math
import sys
import warnings

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

SEED = 20240817


def label_case(name, predicted, expected):
    predicted, expected = np.asarray(predicted), np.asarray(expected)
    return {
        "name": name,
        "predicted": predicted.tolist(),
        "expected": expected.tolist(),
        "accuracy": float(accuracy_score(expected, predicted)),
        # Class 1 against the rest, which is what binary F1 means for more than two classes too.
        "f1": float(f1_score(expected == 1, predicted == 1, zero_division=0)),
        "matthews": float(matthews_corrcoef(expected, predicted)),
    }


def correlation(function, x, y):
    if len(x) < 2:
        return None
    value = float(function(x, y).statistic)
    return None if math.isnan(value) else value


def score_case(name, predicted, expected):
    predicted, expected = np.asarray(predicted, float), np.asarray(expected, float)
    return {
        "name": name,
        "predicted": predicted.tolist(),
        "expected": expected.tolist(),
        "pearson": correlation(pearsonr, predicted, expected),
        "spearman": correlation(spearmanr, predicted, expected),
    }


def noisy_labels(random, n, classes, error):
    expected = random.integers(0, classes, n)
    wrong = random.random(n) < error
    return np.where(wrong, random.integers(0, classes, n), expected), expected


def label_cases(random):
    cases = [label_case(f"one row {p} {e}", [p], [e]) for p in (0, 1) for e in (0, 1)]
    for bits in range(16):
        p, e = [bits & 1, bits >> 1 & 1], [bits >> 2 & 1, bits >> 3 & 1]
        cases.append(label_case(f"two rows {p} {e}", p, e))
    for n, classes, error in ((7, 2, 0.5), (50, 2, 0.2), (50, 3, 0.4), (101, 5, 0.3), (2000, 2, 0.15), (2000, 3, 0.3)):
        cases.append(label_case(f"{n} rows {classes} classes", *noisy_labels(random, n, classes, error)))
    _, expected = noisy_labels(random, 40, 2, 0)
    cases.append(label_case("constant prediction 1", np.ones(40, int), expected))
    cases.append(label_case("constant prediction 0", np.zeros(40, int), expected))
    cases.append(label_case("constant label", expected, np.zeros(40, int)))
    cases.append(label_case("all wrong", 1 - expected, expected))
    cases.append(label_case("all right", expected, expected))
    cases.append(label_case("rare positive", *[np.where(random.random(500) < 0.02, 1, 0) for _ in range(2)]))
    predicted, expected = noisy_labels(random, 30, 3, 0.5)
    cases.append(label_case("far apart labels", predicted * 1000 - 1000, expected * 1000 - 1000))
    return cases


def score_cases(random):
    cases = [
        score_case("one row", [1.5], [2.5]),
        score_case("two rows up", [1, 2], [0.1, 0.7]),
        score_case("two rows down", [1, 2], [0.7, 0.1]),
        score_case("constant prediction", [0.1] * 10, random.random(10)),
        score_case("constant label", random.random(10), [0.1] * 10),
        score_case("ties of three values", random.integers(0, 3, 60), random.integers(0, 3, 60)),
        score_case("almost constant", 1e6 + np.round(random.random(20), 3), np.round(random.random(20), 3)),
        score_case("huge and tiny", random.random(15) * 1e200, random.random(15) * 1e-200),
        score_case("negative zero is zero", [0.0, -0.0, 1.0, -1.0], [0.0, 1.0, 2.0, 0.0]),
    ]
    for n in (3, 20, 333, 2000):
        expected = np.round(random.random(n) * 5 * 5) / 5  # STS-B's grid: many ties
        cases.append(score_case(f"{n} rows on a grid", np.round(expected + random.normal(0, 1, n), 3), expected))
    return cases


def main():
    warnings.simplefilter("ignore")
    random = np.random.default_rng(SEED)
    cases = {"labels": label_cases(random), "scores": score_cases(random)}
    with open(sys.argv[1], "w", encoding="ascii") as file:
        # A case a line, so that a diff shows which changed.
        file.write("{\n")
        for i, (kind, rows) in enumerate(cases.items()):
            lines = ",\n".join(json.dumps(row, separators=(",", ":"), allow_nan=False) for row in rows)
            file.write(f'"{kind}": [\n{lines}\n]{"," if i == 0 else ""}\n')
        file.write("}\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main()
