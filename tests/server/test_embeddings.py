"""Texts become embeddings that tell subjects apart; files that hold neither are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pathwatch.server.analysis.pairing import pair
from pathwatch.server.embeddings import EmbeddingsError, load_embeddings

TRAIN = {
    "source": ["def add(a, b): return a + b", "for item in items: print(item)", "import numpy as np"],
    "sums": ["What is seven plus five?", "Ann has 3 apples and buys 4 more.", "Solve 2x + 3 = 11."],
    "scripture": ["In the beginning God created the heaven and the earth.", "The Lord is my shepherd."],
}
TESTS = {
    "gsm8k": ["A shop sells 12 eggs for 3 dollars. How much are 36 eggs?", "If x = 4, what is 3x - 2?"],
    "psalms": ["Praise ye the Lord, for his mercy endureth for ever.", "God is our refuge and strength."],
    "mbpp": ["Write a Python function that reverses a list.", "class Stack: def push(self, x): pass"],
}


def write_texts(path: Path, by_group: dict[str, list[str]], name: str) -> Path:
    lines = [json.dumps({name: group, "text": text}) for group, texts in by_group.items() for text in texts]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.slow
def test_texts_find_the_test_that_is_about_the_same(tmp_path: Path) -> None:
    train = load_embeddings(write_texts(tmp_path / "train.jsonl", TRAIN, "group"))
    test = load_embeddings(write_texts(tmp_path / "test.jsonl", TESTS, "test"), "test")
    assert {group: len(one.vectors_MD) for group, one in train.items()} == {
        group: len(texts) for group, texts in TRAIN.items()
    }
    np.testing.assert_allclose(np.linalg.norm(train["sums"].vectors_MD, axis=1), 1, rtol=1e-5)
    pairing = pair(*({group: one.vectors_MD for group, one in side.items()} for side in (train, test)))
    assert pairing.assigned == {"source": "mbpp", "sums": "gsm8k", "scripture": "psalms"}


def test_own_embeddings_are_taken_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    vectors_MD = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.savez(path, embeddings=vectors_MD, group=np.array(["a", "b", "a", "b"]))
    found = load_embeddings(path)
    np.testing.assert_array_equal(found["a"].vectors_MD, vectors_MD[[0, 2]])
    np.testing.assert_array_equal(found["b"].vectors_MD, vectors_MD[[1, 3]])
    assert found["a"].ids_M is None
    np.savez(path, embeddings=vectors_MD, group=np.array(["a", "b", "a", "b"]), id=np.array([7, 8, 9, 6]))
    np.testing.assert_array_equal(load_embeddings(path)["b"].ids_M, [8, 6])


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ('{"group": "a", "text": "x"}\nnonsense\n', "line 2: not JSON"),
        ("[1]\n", "line 1: wanted a JSON object"),
        ('\n{"text": "x"}\n', "line 2: wanted `text` and `group`"),
        ('{"group": "a", "text": " "}\n', "line 1: wanted `text`"),
        ('{"group": 3, "text": "x"}\n', "line 1: wanted `text`"),
        ('{"group": "a", "text": "x", "id": 1.5}\n', "line 1: id 1.5 is no sample id"),
        ("", "no texts"),
    ],
)
def test_lines_without_text_or_group_are_refused(tmp_path: Path, content: str, wrong: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(content)
    with pytest.raises(EmbeddingsError, match=f"^{path}.*{wrong}"):
        load_embeddings(path)


@pytest.mark.parametrize(
    ("arrays", "wrong"),
    [
        ({"embeddings": np.ones((2, 3))}, "wanted arrays"),
        ({"embeddings": np.ones(2), "group": np.array(["a", "b"])}, r"\[M, D\]"),
        ({"embeddings": np.ones((2, 3)), "group": np.array([1, 2])}, "text"),
        ({"embeddings": np.ones((2, 3)), "group": np.array(["a"])}, "2 embeddings, but 1 names"),
        ({"embeddings": np.ones((1, 3)), "group": np.array(["a"]), "id": np.array(["7"])}, "integers"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], wrong: str
) -> None:
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(EmbeddingsError, match=wrong):
        load_embeddings(tmp_path / "own.npz")
