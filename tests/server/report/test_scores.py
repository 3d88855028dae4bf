"""Reading scores: tidy CSV, labels, and errors that name the line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pathwatch.server.analysis.scores import ScoresError
from pathwatch.server.report.scores import load_scores


@pytest.fixture
def scores_file(tmp_path: Path) -> Callable[[str], Path]:
    def write(content: str) -> Path:
        path = tmp_path / "scores.csv"
        path.write_text(content)
        return path

    return write


def test_scores_of_the_run(scores_file: Callable[[str], Path]) -> None:
    (key,), (found,) = zip(*load_scores(scores_file("step,score\n200,0.5\n100,0.25\n")).items(), strict=True)
    assert key == ("", "")
    assert found.steps_S.tolist() == [100, 200]
    assert found.scores_S.tolist() == [0.25, 0.5]


def test_scores_by_group_and_test_with_columns_in_any_order_and_others_ignored(
    scores_file: Callable[[str], Path],
) -> None:
    content = 'test,score,remark,step,group\ngsm8k,1,"a, b",5,math\ngsm8k,2,,5,code\nmbpp,3,,5,code\n'
    found = load_scores(scores_file("\ufeff" + content))
    assert {key: one.scores_S.tolist() for key, one in found.items()} == {
        ("math", "gsm8k"): [1.0],
        ("code", "gsm8k"): [2.0],
        ("code", "mbpp"): [3.0],
    }


def test_a_loss_is_read_from_its_own_column(scores_file: Callable[[str], Path]) -> None:
    found = load_scores(scores_file("step,loss\n1,2.5\n"), value="loss")
    assert found["", ""].scores_S.tolist() == [2.5]


def test_labels_without_their_gaps(tmp_path: Path) -> None:
    path = tmp_path / "labels.npz"
    np.savez(
        path,
        steps=np.array([0, 10, 20]),
        groups=np.array(["math", "code"]),
        test_acc=np.array([[0.0, 0.1], [np.nan, 0.2], [0.5, 0.3]]),
    )
    found = load_scores(path)
    assert found["math", ""].steps_S.tolist() == [0, 20]
    assert found["code", ""].scores_S.tolist() == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ("", r"line 1: wanted one column `step`; the header is empty"),
        ("step,acc\n1,2\n", r"line 1: wanted one column `score`; the header is step,acc"),
        ("step,step,score\n1,1,2\n", r"line 1: wanted one column `step`"),
        ("step,score\n", r"no scores below the header"),
        ("step,score\n1,0.5\nx,0.5\n", r"line 3: step 'x' is not a whole number"),
        ("step,score\n1.5,0.5\n", r"line 2: step '1.5' is not a whole number"),
        ("step,score\n-1,0.5\n", r"line 2: step -1 is not a training step"),
        ("step,score\n1,\n", r"line 2: score '' is not a finite number"),
        ("step,score\n1,nan\n", r"line 2: score 'nan' is not a finite number"),
        ("step,score\n\n1\n", r"line 3: not as many cells as the header has columns \(2\)"),
        ("step,score\n1,2,3\n", r"line 2: not as many cells"),
        ("step,group,score\n1,,3\n", r"line 2: no group"),
        ("step,group,score\n1,a,3\n1,b,3\n1,a,4\n", r"line 4: a second score for step 1"),
        ('step,score\n1,"2\n', r"not readable as CSV"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(
    scores_file: Callable[[str], Path], content: str, wrong: str
) -> None:
    path = scores_file(content)
    with pytest.raises(ScoresError, match=f"^{path}.*{wrong}"):
        load_scores(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "bad.npz").write_bytes(b"PK")
    for name, wrong in (("none.csv", "none.csv"), ("binary.csv", "UTF-8"), ("bad.npz", "bad.npz")):
        with pytest.raises(ScoresError, match=wrong):
            load_scores(tmp_path / name)
