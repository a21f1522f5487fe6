"""`dstrl export`: files that act as the policy does, what is printed, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from export_samples import STRICT, needs_compiler, random_layers, write_actor

from dstrl_cli.cli import main
from dstrl_cli.export import acting, clocks, onnx_graph
from dstrl_cli.export.cost import Cost
from dstrl_cli.export.exporting import Described, Exported
from dstrl_cli.export.network import needed_part
from dstrl_cli.runs.policy import Policy
from dstrl_cli.terminal import exported as exported_words

needs_onnx = pytest.mark.skipif(
    not all(map(find_spec, ("onnx", "onnxruntime"))),
    reason="onnx and onnxruntime are not installed: pip install 'dstrl[export]'",
)

UNUSUAL = {"action_low": [-1 / 3, -1.0], "action_high": [0.1, 2 / 3]}

KINDS = {
    "td3": {},
    "sac in double": {"algo": "sac", "action_size": 2, "action_dtype": "float64", **UNUSUAL},
    "half": {"action_dtype": "float16", "action_low": [-2.0] * 4, "action_high": [2.0] * 4},
    "double within plus and minus 1": {"action_dtype": "float64"},
}


@pytest.fixture(autouse=True)
def _short_measurements(monkeypatch):
    monkeypatch.setattr(clocks, "SECONDS", 0.001)
    monkeypatch.setattr(clocks, "ROUNDS", 1)


def policy_file(folder: Path, density: float = 0.3, **changes) -> Path:
    weights, biases = random_layers([5, 24, 16, 4], density, 0)
    return write_actor(folder / "policy.safetensors", weights, biases, **changes)


def seen() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((9, 5)).astype(np.float32)


def exported(capsys, *arguments: str) -> dict:
    assert main(["export", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


# --- equal actions ------------------------------------------------------------------------------


@needs_onnx
@pytest.mark.parametrize("kind", KINDS)
def test_onnxruntime_gives_the_policys_actions(tmp_path, kind):
    policy = Policy.load(policy_file(tmp_path, **KINDS[kind]))
    model = onnx_graph.session(onnx_graph.model(needed_part(policy), {"env": "x"}))
    (actions,) = model.run(None, {"observation": seen()})
    assert actions.dtype == policy.action_low.dtype
    tolerance = 2e-3 if actions.dtype == np.float16 else 2e-6
    np.testing.assert_allclose(actions, policy.act(seen()), rtol=tolerance, atol=tolerance)
    ((one,),) = model.run(None, {"observation": seen()[:1]})
    np.testing.assert_allclose(one, actions[0], rtol=tolerance, atol=tolerance)


@needs_onnx
def test_an_onnx_model_without_connections_acts_by_its_biases(tmp_path):
    policy = Policy.load(policy_file(tmp_path, density=0))
    model = onnx_graph.session(onnx_graph.model(needed_part(policy), {}))
    (actions,) = model.run(None, {"observation": seen()})
    np.testing.assert_allclose(actions, policy.act(seen()), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_npz_file_acts_by_numpy_alone(tmp_path, capsys, kind):
    file, out = policy_file(tmp_path, **KINDS[kind]), tmp_path / "net.npz"
    assert main(["export", str(file), "--format", "npz", "--out", str(out)]) == 0
    policy, arrays = Policy.load(file), acting.load(str(out))
    actions = acting.act(arrays, seen())
    assert actions.dtype == policy.act(seen()).dtype
    tolerance = 2e-3 if actions.dtype == np.float16 else 2e-6
    np.testing.assert_allclose(actions, policy.act(seen()), rtol=tolerance, atol=tolerance)
    one = acting.act(arrays, seen()[0])
    np.testing.assert_allclose(one, actions[0], rtol=tolerance, atol=tolerance)
    assert json.loads(str(arrays["about"]))["env"] == policy.env


# --- the command --------------------------------------------------------------------------------


@needs_compiler
def test_c_is_reported_beside_the_dense_policy(tmp_path, capsys):
    file = policy_file(tmp_path)
    found = exported(capsys, str(file), "--format", "c", "--out", str(tmp_path / "net"))
    paths = [tmp_path / "net.c", tmp_path / "net.h"]
    assert found["run"] == str(file)
    assert found["files"] == {str(path): path.stat().st_size for path in paths}
    dense = found["dense"]
    assert dense["connections"] == dense["cost"]["multiply_adds"] == 5 * 24 + 24 * 16 + 16 * 4
    assert dense["cost"]["constant_bytes"] == 4 * (dense["connections"] + 24 + 16 + 4)
    assert dense["cost"]["ram_bytes"] == 4 * (24 + 16)
    weights = Policy.load(file).weights
    assert found["policy"]["connections"] <= sum(np.count_nonzero(each) for each in weights)
    assert found["policy"]["cost"]["multiply_adds"] == found["policy"]["connections"]
    for part in ("policy", "dense"):
        assert 0 < found[part]["seconds"] < 1
    assert found["not_measured"] is None
    command = [clocks.find_compiler(), *STRICT, "-c", paths[0], "-o", tmp_path / "net.o"]
    assert subprocess.run(command, capture_output=True, check=True).stderr == b""


@needs_onnx
def test_onnx_is_reported_as_whole_matrices(tmp_path, capsys):
    out = tmp_path / "net.onnx"
    found = exported(capsys, str(policy_file(tmp_path)), "--format", "onnx", "--out", str(out))
    assert found["files"] == {str(out): out.stat().st_size}
    cost, sizes = found["policy"]["cost"], [5, *found["policy"]["hidden_sizes"], 4]
    assert cost["multiply_adds"] == sum(a * b for a, b in pairwise(sizes))
    assert found["policy"]["seconds"] > 0


def test_a_table_is_printed(tmp_path, capsys):
    out = tmp_path / "net.npz"
    assert main(["export", str(policy_file(tmp_path)), "--format=npz", f"--out={out}"]) == 0
    said = capsys.readouterr().out
    for words in ("TD3 policy of step 300", "multiply-adds", "flash", "RAM", "microseconds"):
        assert words in " ".join(said.split())
    assert "24-16" in said


IDLE = "that nothing depends on"


@pytest.mark.parametrize(
    ("no_output", "no_input", "words"),
    [
        (0, 1, "1 constant hidden neuron (now in biases)"),
        (1, 0, f"1 hidden neuron {IDLE}"),
        (2, 1, f"2 hidden neurons {IDLE} and 1 constant hidden neuron (now in biases)"),
    ],
)
def test_what_was_left_out_is_counted(no_output, no_input, words):
    network = Described([2], 4, Cost(4, 40, 8), None)
    about = {"algo": "td3", "env": "Pendulum-v1", "step": "300"}
    done = Exported("npz", about, {Path("p.npz"): 9}, network, network, no_output, no_input)
    assert list(exported_words.lines(done))[1:] == [f"left out: {words}"]


def test_without_a_compiler_c_is_written_and_the_reason_given(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments = ["export", str(policy_file(tmp_path)), "--format", "c", "--out"]
    assert main([*arguments, str(tmp_path / "net")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "time of an action was not measured: no C compiler was found (cc, gcc, clang)" in said
    assert (tmp_path / "net.c").is_file()


def test_a_compiler_that_fails_is_a_reason_too(tmp_path, capsys, monkeypatch):
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    file, out = policy_file(tmp_path), str(tmp_path / "net")
    found = exported(capsys, str(file), "--format", "c", "--out", out)
    assert found["not_measured"] == "cc failed: broken"
    assert found["policy"]["seconds"] is None


def test_no_torch_is_loaded(tmp_path):
    code = (
        "import sys; from dstrl_cli.export import exporting; from pathlib import Path;"
        "exporting.export(Path(sys.argv[1]), 'npz', Path(sys.argv[2]));"
        "print({'torch', 'gymnasium', 'onnx'} & {*sys.modules})"
    )
    command = [sys.executable, "-c", code, str(policy_file(tmp_path)), str(tmp_path / "net.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- refusals -----------------------------------------------------------------------------------


def refused(capsys, *arguments: str) -> str:
    assert main(["export", *arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ")
    assert "\n" not in said
    return said


def test_files_that_are_there_are_replaced_only_where_that_is_wished(tmp_path, capsys):
    file, out = str(policy_file(tmp_path)), tmp_path / "net.npz"
    out.write_text("mine")
    assert "exists" in refused(capsys, file, "--format", "npz", "--out", str(out))
    assert out.read_text() == "mine"
    assert main(["export", file, "--format", "npz", "--out", str(out), "--overwrite"]) == 0
    assert len(acting.load(str(out))) > 4
    (tmp_path / "net.h").write_text("mine")
    assert "net.h exists" in refused(capsys, file, "--format", "c", "--out", str(tmp_path / "net"))
    assert not (tmp_path / "net.c").exists()


def test_a_link_is_not_written_through(tmp_path, capsys):
    file, out, other = str(policy_file(tmp_path)), tmp_path / "net.npz", tmp_path / "other"
    out.symlink_to(other)
    assert "exists" in refused(capsys, file, "--format", "npz", "--out", str(out))
    other.write_text("mine")
    assert main(["export", file, "--format", "npz", "--out", str(out), "--overwrite"]) == 0
    assert other.read_text() == "mine"
    assert not out.is_symlink()


def test_the_policy_itself_is_never_replaced(tmp_path, capsys):
    file = policy_file(tmp_path)
    before = file.read_bytes()
    arguments = [str(file), "--format", "npz", "--out", str(file), "--overwrite"]
    assert "is the policy file itself" in refused(capsys, *arguments)
    assert file.read_bytes() == before


@pytest.mark.parametrize("out", ["no/net.npz", "."])
def test_places_that_cannot_be_written_are_refused(tmp_path, capsys, out):
    arguments = [str(policy_file(tmp_path)), "--format", "npz", "--overwrite"]
    assert "--out" in refused(capsys, *arguments, "--out", str(tmp_path / out))


def test_other_formats_and_runs_are_refused(tmp_path, capsys):
    file, out = str(policy_file(tmp_path)), str(tmp_path / "net")
    said = refused(capsys, file, "--format", "onx", "--out", out)
    assert "unknown --format 'onx'; did you mean 'onnx'? Valid: c, npz, onnx" in said
    assert "does not exist" in refused(capsys, str(tmp_path / "x"), "--format=c", "--out", out)
    assert "names no C file" in refused(capsys, file, "--format=c", "--out", f"{tmp_path}/a b")
    assert not list(tmp_path.glob("net*"))


def test_an_overflowing_policy_is_refused(tmp_path, capsys):
    weights, biases = random_layers([5, 8, 4], 1.0, 0)
    weights[0] *= np.float32(1e37)
    file = write_actor(tmp_path / "policy.safetensors", weights, biases)
    said = refused(capsys, str(tmp_path), "--format=c", "--out", str(tmp_path / "net"))
    assert f"policy file {file}: its weights overflow" in said
    assert not list(tmp_path.glob("net*"))


def test_a_policy_that_its_run_did_not_write_is_refused(tmp_path, capsys):
    policy_file(tmp_path)
    wrong = {"files": {"policy.safetensors": {"sha256": "0" * 64}}}
    (tmp_path / "summary.json").write_text(json.dumps(wrong))
    arguments = [str(tmp_path), "--format=npz", "--out", str(tmp_path / "net.npz")]
    assert "not as the run wrote it" in refused(capsys, *arguments)


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named_with_its_extra(tmp_path, capsys, monkeypatch, missing):
    for module in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, module, json)  # both are there, whatever is installed
    monkeypatch.setitem(sys.modules, missing, None)
    arguments = [str(policy_file(tmp_path)), "--format=onnx", "--out", str(tmp_path / "net.onnx")]
    said = refused(capsys, *arguments)
    assert f"needs {missing}, which is not installed: pip install 'dstrl[export]'" in said
    assert not (tmp_path / "net.onnx").exists()


def test_text_of_a_run_is_printed_and_written_without_what_a_terminal_obeys(tmp_path, capsys):
    kwargs = {"name": "\x1b[31m"}
    file, out = policy_file(tmp_path, env="\x1b[31mX-v0", env_kwargs=kwargs), tmp_path / "net"
    assert main(["export", str(file), "--format", "c", "--out", str(out)]) == 0
    assert "\\x1b[31mX-v0" in capsys.readouterr().out
    assert b"env: _x1b[31mX-v0" in (tmp_path / "net.h").read_bytes()


@needs_compiler
def test_what_would_take_a_compiler_too_long_is_not_timed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(clocks, "MOST_COMPILED", 567)  # the dense policy has 568 connections
    file, out = str(policy_file(tmp_path)), str(tmp_path / "net")
    found = exported(capsys, file, "--format", "c", "--out", out)
    assert "568 connections take a compiler too long" in found["not_measured"]
