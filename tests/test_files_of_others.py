"""Files of others: no link is written through, nothing is read before its kind is known."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from policy_samples import write_policy
from report_samples import write_run
from sweep_samples import leave, runs

from dstrl_cli.cli import main
from dstrl_cli.config.readfile import MAX_YAML, parse_json, read_text
from dstrl_cli.config.stored import parse_document
from dstrl_cli.config.yamlfile import parse_yaml
from dstrl_cli.errors import DstrlError, InputError
from dstrl_cli.report.runs import load
from dstrl_cli.runs import checksums, files, logs, output, repair
from dstrl_cli.runs.checkpoint import write_state
from dstrl_cli.runs.folder import RunFolder
from dstrl_cli.runs.policy import Policy
from dstrl_cli.runs.summary import read_summary
from dstrl_cli.sweep import status
from dstrl_cli.sweep.plan import Axes
from dstrl_cli.training import verify

RUN = "2DNav-v1/td3-rlx2/s0.95/seed0"
TRAIN = ["train", "--env=2DNav-v1", "--steps=50", "--out=results"]


@pytest.fixture
def victim(empty_folder: Path) -> Path:
    """A file that nobody may change."""
    path = empty_folder / "victim"
    path.write_text("precious")
    return path


# --- writing ------------------------------------------------------------------------------------


def test_a_link_planted_under_the_name_of_a_part_is_replaced(victim: Path) -> None:
    Path(".config.yaml.part").symlink_to(victim)
    files.write(Path("config.yaml"), b"a: 1\n")
    assert Path("config.yaml").read_text() == "a: 1\n"
    assert victim.read_text() == "precious"
    assert [path.name for path in Path().iterdir() if path.name.endswith(".part")] == []


def test_a_link_in_place_of_a_whole_file_is_replaced(victim: Path) -> None:
    Path("summary.json").symlink_to(victim)
    files.write(Path("summary.json"), b"{}")
    assert not Path("summary.json").is_symlink()
    assert victim.read_text() == "precious"


def test_rows_are_not_added_through_a_link(victim: Path) -> None:
    (run,) = runs(Axes())
    with RunFolder(run.path).create(_document(run)) as folder:
        (run.path / "eval.csv").unlink()
        (run.path / "eval.csv").symlink_to(victim)
        with pytest.raises(DstrlError, match=r"eval\.csv cannot be written: it is a link"):
            folder.evaluation(0, [1.0], [1], [None])
    assert victim.read_text() == "precious"


def test_a_checkpoint_is_not_written_through_links(victim: Path) -> None:
    Path("elsewhere").mkdir()
    Path("checkpoint").symlink_to("elsewhere")
    with pytest.raises(InputError, match="checkpoint is a link"):
        write_state(Path("checkpoint"), {"step": 1})
    Path("own").mkdir()
    Path("own/.state.safetensors.part").symlink_to(victim)
    write_state(Path("own"), {"step": 1})
    assert victim.read_text() == "precious"
    assert list(Path("elsewhere").iterdir()) == []


@pytest.mark.parametrize("planted", ["2DNav-v1", "2DNav-v1/td3-rlx2", RUN, f"{RUN}/.lock"])
@pytest.mark.parametrize("command", ["train", "sweep"])
def test_a_link_inside_the_results_is_refused(
    victim: Path, planted: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("elsewhere").mkdir()
    link = Path("results", planted)
    link.parent.mkdir(parents=True)
    link.symlink_to(victim if planted.endswith(".lock") else Path("elsewhere").resolve())
    assert main([command, *TRAIN[1:]]) == 2
    assert f"{link} is a link" in capsys.readouterr().err
    assert list(Path("elsewhere").iterdir()) == []
    assert victim.read_text() == "precious"


def test_the_folder_of_the_results_itself_may_be_a_link(empty_folder: Path) -> None:
    Path("disk").mkdir()
    Path("results").symlink_to("disk")
    (run,) = runs(Axes())
    leave(run, "finished")
    assert (Path("disk") / run.label / "config.yaml").is_file()


def test_starting_over_removes_a_link_and_not_what_it_points_to(empty_folder: Path) -> None:
    (run,) = runs(Axes())
    leave(run, "interrupted")
    Path("elsewhere").mkdir()
    Path("elsewhere/kept").touch()
    (run.path / "checkpoint").symlink_to(Path("elsewhere").resolve())
    with RunFolder(run.path).create(_document(run), overwrite=True):
        assert not (run.path / "checkpoint").is_symlink()
    assert Path("elsewhere/kept").exists()


@pytest.mark.parametrize("name", ["absent/out.csv", "a" * 300, "/dev/null", "folder"])
def test_a_benchmark_refuses_a_file_that_it_could_not_write_before_it_measures(
    empty_folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("folder").mkdir()
    assert main(["bench", "update", "--seconds=0.01", "--repeats=1", f"--csv={name}"]) == 2
    assert "--csv: '" in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["folder"]


def _document(run) -> dict:
    from dstrl_cli.config.parse import to_dict

    return to_dict(run.config) | {"run": {}}


# --- kinds of files -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.yaml", "summary.json", "eval.csv"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_table_waits_for_no_pipe_and_reads_no_device(
    tmp_path: Path, name: str, kind: str
) -> None:
    for seed in (0, 1):
        write_run(tmp_path, f"Hopper-v5/td3-rlx2/s0.9/seed{seed}", {1000: [1.0]})
    file = tmp_path / "Hopper-v5/td3-rlx2/s0.9/seed1" / name
    file.unlink()
    match kind:
        case "pipe":
            os.mkfifo(file)
        case "device":
            file.symlink_to("/dev/zero")
        case "folder":
            file.mkdir()
    found = load(tmp_path)
    for run in found.runs:
        len(run.evaluations["step"])
    (damage,) = found.damaged
    assert damage.path.endswith(f"seed1/{name}")
    assert f"is a {kind}, not a file" in damage.cause


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--preset=pipe.yaml"], "pipe.yaml: cannot be read: is a pipe, not a file"),
        (["train", "--dst=pipe.yaml"], "pipe.yaml: cannot be read: is a pipe, not a file"),
        (["train", "--preset=/dev/zero.yaml"], "No such file"),
        (["train", "--preset=large.yaml"], "large.yaml: cannot be read: is larger than 1,000,000"),
        (["eval", "pipe.yaml"], "'pipe.yaml' does not exist"),
    ],
)
def test_a_command_waits_for_no_pipe(
    empty_folder: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo("pipe.yaml")
    Path("large.yaml").write_text("#" * (MAX_YAML + 1))
    assert main(arguments) == 2
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_checksums_status_and_repair_wait_for_no_pipe_and_read_no_device(
    tmp_path: Path, kind: str
) -> None:
    names = ("progress.csv", "eval.csv", "policy.safetensors", "log.txt")
    for name in names:
        if kind == "pipe":
            os.mkfifo(tmp_path / name)
        else:
            (tmp_path / name).symlink_to("/dev/zero")
    summary = {"files": {name: {"sha256": "0"} for name in names}}
    said = dict(checksums.differing_logs(tmp_path, summary))
    assert sorted(said) == ["eval.csv", "progress.csv"]
    assert f"cannot be read (is a {kind}, not a file)" in said["eval.csv"]
    assert checksums.of_files(tmp_path) == {}
    with pytest.raises(InputError, match=f"cannot be read: is a {kind}, not a file"):
        checksums.check_policy(tmp_path / "policy.safetensors", summary)
    assert repair.summary_from_files(tmp_path, {"steps": 10}) is None
    assert status._last_row(tmp_path, "progress.csv") == {}
    with pytest.raises(InputError, match=f"is damaged, .* is a {kind}, not a file"):
        logs.check(tmp_path, {"eval.csv": 10}, {})
    with pytest.raises(InputError, match=f"cannot be read: is a {kind}, not a file"):
        verify._rows(tmp_path / "eval.csv")
    output.append(tmp_path, b"printed")  # drops it


def test_what_a_run_prints_is_not_added_through_a_link(victim: Path) -> None:
    output.append(Path(), b"one")
    output.append(Path(), b"two")
    assert Path("log.txt").read_bytes() == b"onetwo"
    Path("log.txt").unlink()
    Path("log.txt").symlink_to(victim)
    output.append(Path(), b"three")
    assert victim.read_text() == "precious"


def test_a_file_without_a_size_is_read_no_further_than_its_limit() -> None:
    with pytest.raises(OSError, match="is larger than 10 bytes"):
        read_text(Path("/proc/self/status"), 10)


# --- nesting ------------------------------------------------------------------------------------

BOMB = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{below}'] * 10)}]\n"
    for below, name in zip("abcdef", "bcdefg", strict=True)
)
YAML = [
    ("[" * 5000, "nested more than 50 deep"),
    ("[" * 51 + "]" * 51, "nested more than 50 deep"),
    ("- " * 20_000, "nested more than 50 deep"),
    ("a: &a [*a]", "contains itself"),
    ("&a {b: *a}", "contains itself"),
    (BOMB, "holds more than 20,000 values"),
    ("!!timestamp x", "has no meaning here"),
    ("!!python/object/apply:os.system [x]", "has no meaning here"),
    ("!!bool maybe", "maybe"),
    ("!!int ''", "not valid YAML"),
    ("9" * 5000, "4300 digits"),
    ("\x00", "control characters"),
]


@pytest.mark.parametrize(("text", "said"), YAML)
def test_yaml_that_would_overflow_or_grow_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_yaml(text, "--set nstep")
    with pytest.raises(Exception, match=r".") as stored:
        parse_document(f"steps: {text}\n")
    assert type(stored.value).__module__.startswith("yaml")


def test_yaml_may_be_fifty_deep_and_name_what_it_says_twice() -> None:
    assert str(parse_yaml("[" * 50 + "]" * 50, "f")) == "[" * 50 + "]" * 50
    assert parse_yaml("a: &x {b: 1}\nc: *x", "f") == {"a": {"b": 1}, "c": {"b": 1}}


@pytest.mark.parametrize("depth", [51, 100_000])
def test_json_that_is_nested_deeply_is_no_summary(tmp_path: Path, depth: int) -> None:
    text = '{"status": ' + "[" * depth + "]" * depth + "}"
    (tmp_path / "summary.json").write_text(text)
    assert read_summary(tmp_path) is None
    with pytest.raises(ValueError, match="nested more than 50 deep"):
        parse_json(text)


# --- policies -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_sizes": "[1e400]"},
        {"hidden_sizes": "[" * 5000},
        {"hidden_sizes": "[" + "9" * 5000 + "]"},
        {"observation_size": "1e400"},
        {"action_low": "[NaN]"},
        {"action_low": "[1.0]"},
        {"action_low": "[1e400]"},
        {"env_kwargs": '{"a": {"b": 1}}'},
        {"env_kwargs": "[1]"},
        {"env": ""},
        {"task": "99"},
    ],
)
def test_a_policy_with_impossible_metadata_is_refused(tmp_path: Path, changes: dict) -> None:
    path = write_policy(tmp_path / "policy.safetensors")
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    header["__metadata__"] |= changes
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
    with pytest.raises(InputError, match=r"damaged metadata|cannot be read"):
        Policy.load(path)


def test_returns_too_large_to_average_are_damage(tmp_path: Path) -> None:
    write_run(tmp_path, "Hopper-v5/td3-rlx2/s0.9/seed0", {1000: [1e308, 1e308]})
    write_run(tmp_path, "Hopper-v5/td3-rlx2/s0.9/seed1", {1000: [2.0, 4.0]})
    found = load(tmp_path)
    assert [run.evaluations["return"].tolist() for run in found.runs] == [[], [2.0, 4.0]]
    assert found.damaged[0].cause == "unusable rows left out: 2, the first near line 2"
