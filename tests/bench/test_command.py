"""`python bench/signal` as a person runs it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.signal.command import main, parse_policy

ROOT = Path(__file__).parents[2]
TRACES = ROOT / "tests" / "data" / "traces"


@pytest.mark.parametrize("how", [["bench/signal"], ["-m", "bench.signal"]])
def test_help_either_way(how):
    shown = subprocess.run(
        [sys.executable, *how, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for option in ("--traces", "--labels", "--detector", "--policy", "--variant", "--json", "--jobs"):
        assert option in shown


@pytest.fixture
def folder(tmp_path):
    """Two short recorded runs, their labels elsewhere."""
    (tmp_path / "labels-elsewhere").mkdir()
    for name in ("text_c_s0", "ol_pair_s0"):
        shutil.copy(TRACES / f"{name}.npz", tmp_path)
        shutil.copy(TRACES / "labels" / f"{name}.labels.npz", tmp_path / "labels-elsewhere")
    return tmp_path


@pytest.mark.slow
def test_scores_recorded_runs(folder, capsys):
    report_path = folder / "out.json"
    arguments = [
        "--traces",
        str(folder),
        "--labels",
        str(folder / "labels-elsewhere"),
        "--variant",
        "thinned",
    ]
    arguments += ["--policy", "quorum:quorum=0.5", "--jobs", "2", "--json", str(report_path)]
    main(arguments)
    printed = capsys.readouterr().out
    report = json.loads(report_path.read_text())
    assert {"detector", "policy", "variant", "methods"} == set(report)
    methods = {method["method"]: method for method in report["methods"]}
    assert list(methods) == [
        "pathway-drop + quorum:quorum=0.5",
        "loss patience",
        "smallest loss",
        "last checkpoint",
        "D_path alone",
        "D_path / length alone",
        "C_i alone",
        "step number",
    ]
    for name, method in methods.items():
        assert name in printed
        assert method["summary"]["groups_learned"] == 2
        assert method["summary"]["text_groups_overfit"] == method["summary"]["text_groups_healthy"] == 2
        assert [run["run"] for run in method["runs"]] == ["ol_pair_s0", "text_c_s0"]
        assert all((run["fitted"] is not None) == (name in list(methods)[4:]) for run in method["runs"])
    last = methods["last checkpoint"]["runs"][0]["groups"][0]
    assert last["at_stop"] == last["last"]
    assert last["best"]["score"] >= last["last"]["score"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--traces", "{folder}"], "text_c_s0.labels.npz; name their folder by --labels"),
        (["--traces", "{folder}/labels"], "no traces"),
        (["--traces", "{data}", "--policy", "nonesuch"], "'nonesuch' is not an installed"),
        (["--traces", "{data}", "--policy", "quorum:half"], "wanted NAME or NAME:option=value"),
        (["--traces", "{data}", "--policy", "quorum:quorum=2"], "is not a share"),
        (["--traces", "{data}", "--detector", "nonesuch"], "'nonesuch' is not an installed"),
        (["--traces", "{data}", "--jobs", "0"], "wanted 1 or more"),
    ],
)
def test_what_is_of_no_use_is_refused_in_one_line(tmp_path, capsys, arguments, complaint):
    (tmp_path / "labels").mkdir()
    shutil.copy(TRACES / "text_c_s0.npz", tmp_path)
    with pytest.raises(SystemExit) as exited:
        main([argument.format(folder=tmp_path, data=TRACES) for argument in arguments])
    assert exited.value.code == 2
    assert complaint in capsys.readouterr().err


def test_policies_with_options():
    assert parse_policy("all-groups") == ("all-groups", {})
    assert parse_policy("p:a=1,b=x=y") == ("p", {"a": "1", "b": "x=y"})
