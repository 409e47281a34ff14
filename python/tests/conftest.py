import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def model_file() -> pathlib.Path:
    return ROOT / "models" / "minilm-trees.esp"


@pytest.fixture(scope="session")
def model(model_file):
    import espalier

    return espalier.Model(model_file)
