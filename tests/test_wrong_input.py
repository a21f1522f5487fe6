"""Wrong input of every kind: exit code 2, one message, no traceback, and nothing is written."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_samples import write_policy
from report_samples import write_run

from dstrl_cli import commands
from dstrl_cli.cli import main
from dstrl_cli.config.keys import MACROS, keys
from dstrl_cli.runs import provenance

TRAIN = ("train", "--env=2DNav-v1", "--steps=1000", "--set=hidden_sizes=[8,8]")
SWEEP = ("sweep", *TRAIN[1:])
LONG = "a" * 300


def told(arguments: list[str], codes: tuple[int, ...] = (2,)) -> str:
    """Run a command, which must end with one of the codes; return what it said."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(arguments)
    said = err.getvalue()
    assert code in codes, (code, said)
    assert "Traceback" not in said
    assert "should not happen" not in said
    assert len(said) < 5000
    return said if code else out.getvalue()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*SWEEP, "--sparsity=0.1:0.9:1e-9999999"], "--sparsity: '0.1:0.9:1e-9999999' is not"),
        ([*SWEEP, "--sparsity=0:1e300:1e-300"], "--sparsity: the range"),
        ([*SWEEP, f"--seeds={'9' * 5000}"], "--seeds: '9999"),
        ([*TRAIN, f"--seed={'9' * 5000}"], "seed = '9999"),
        ([*TRAIN, "--steps=1e999999999"], "--steps"),
        ([*TRAIN, f"--device-memory={'9' * 400}GB"], "--device-memory"),
        ([*TRAIN, "--set=nstep=!!bool maybe"], "--set nstep"),
        ([*TRAIN, "--set=nstep=!!int ''"], "--set nstep"),
        ([*TRAIN, "--set=nstep=!!timestamp x"], "--set nstep"),
        ([*TRAIN, f"--set=nstep={'[' * 5000}"], "--set nstep"),
        ([*TRAIN, "--set=nstep=&a [*a]"], "--set nstep"),
        ([*TRAIN, "--set=batch_size=1e40"], "batch_size = 1e+40: must be at most 1e18"),
        ([*TRAIN, "--set=nstep_delay=1e40"], "nstep_delay = 1e+40: must be at most 1e18"),
        ([*TRAIN, "--set=hidden_sizes=1e30"], "hidden_sizes = 1e+30"),
        ([*TRAIN, "--set=hidden_sizes=[1e6,1e6,1e6]"], "main memory has"),
        ([*TRAIN, "--set=alpha={}"], "alpha: must be a number"),
        (
            [*TRAIN, "--set=threads=1e9"],
            "threads = 1000000000.0: must be auto, or a whole number from 1",
        ),
        ([*TRAIN, "--set=env_workers=1e9"], "env_workers"),
        ([*TRAIN, f"--out={LONG}"], "cannot be made (File name too long)"),
        ([*SWEEP, f"--out={LONG}"], "cannot be made (File name too long)"),
        ([*TRAIN, "--out=loop"], "cannot be made (Too many levels of symbolic links)"),
        ([*SWEEP, "--out=loop/x"], "cannot be made (Too many levels of symbolic links)"),
        (["table", LONG], "does not exist"),
        (["table", "loop"], "does not exist"),
        (["eval", LONG], "does not exist"),
        (["eval", "loop"], "does not exist"),
        ([*TRAIN, "--dst=m1.yaml"], "m1.yaml: extends more than 20 methods in a row"),
        ([*TRAIN, f"--dst={'b' * 100_000}"], "unknown method 'bbb"),
        ([*TRAIN, f"--set=target_trim={'c' * 100_000}"], "target_trim = 'ccc"),
    ],
)
def test_what_once_gave_a_traceback_is_one_message(
    empty_folder: Path, arguments: list[str], said: str
) -> None:
    Path("loop").symlink_to("loop")
    for number in range(1, 30):
        Path(f"m{number}.yaml").write_text(f"extends: m{number + 1}.yaml\n")
    before = sorted(Path().iterdir())
    assert said in " ".join(told(arguments).split())
    assert sorted(Path().iterdir()) == before


def test_an_empty_group_of_keys_says_nothing(empty_folder: Path) -> None:
    for group in ("actor", "topology.params", "env.kwargs"):
        assert told([*TRAIN, f"--set={group}={{}}", "--dry-run"], codes=(0,))


# --- the unexpected -----------------------------------------------------------------------------


def test_what_nobody_expected_is_one_line_and_a_traceback_in_a_file(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a fault\nof dstrl's own")

    monkeypatch.setattr(commands, "list_names", broken)
    monkeypatch.setattr("tempfile.tempdir", str(empty_folder))
    assert main(["list", "keys"]) == 1
    said = capsys.readouterr().err
    (kept,) = empty_folder.glob("dstrl-traceback-*.txt")
    assert said == (
        "error: RuntimeError: a fault of dstrl's own, test_wrong_input.py:"
        f"{broken.__code__.co_firstlineno + 1}; this should not happen: please report it with its "
        f"traceback, saved in {kept}\n"
    )
    assert 'raise RuntimeError("a fault\\nof dstrl\'s own")' in kept.read_text()


@pytest.mark.parametrize("limit", [100, 2000])
def test_a_disk_that_is_full_is_said_with_the_file(empty_folder: Path, limit: int) -> None:
    resource = pytest.importorskip("resource")
    provenance.git_commit()  # git, too, would meet the limit; its answer is kept
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        run = ["--set=learning_starts=900", "--set=eval_every=10", "--set=eval_episodes=2"]
        said = told([*TRAIN, *run], codes=(1,))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "the file would be larger" in said
    assert "results/2DNav-v1/td3-rlx2/s0.95/seed0/" in said


# --- anything at all ----------------------------------------------------------------------------

VALUES = st.sampled_from(
    [
        *("", "{}", "[]", "null", "true", "-1", "0", "1e40", "-1e40", "1e400", ".nan", "-.inf"),
        *("[1,2,3]", "[[1]]", "{a: 1}", "{a: {b: 1}}", '"\\x1b]0;t\\a"', "9" * 5000, "9" * 41),
        *("module:Name", "os:system", ":", "x:", ":x", "!!float q", "!!binary aGk=", "!!set {a}"),
        *("{" * 100, "a: b: c", "- a", "|\n x", "\x00", "1_0", "0x10", "1e18", "1e19", "~", "*"),
        *("2001-01-01", "&", "%", "@", "'", "\\", "inf", "auto", "cuda:" + "9" * 30, "sparse"),
        *("é" * 300, "a" * 20_000, f"[{','.join(['1'] * 5000)}]", "last-steps:" + "9" * 5000),
        *("../..", "/", "/dev/null", "a\nb", "1,2", "<<: 1", "? x", "0.999999999999", "1e-320"),
    ]
) | st.text(max_size=12)
KEYS = st.sampled_from([*keys(), *MACROS, "env", "env.kwargs.x", "topology.params.p", "actor", ""])
FLAGS = st.sampled_from(
    [
        *("--sparsity", "--actor-sparsity", "--seed", "--seeds", "--steps", "--task", "--device"),
        *("--engine", "--out", "--algo", "--dst", "--env", "--preset", "--device-memory"),
    ]
)
PAIRS = st.builds(lambda key, value: f"--set={key}={value}", KEYS, VALUES)
ARGUMENTS = st.lists(PAIRS | st.builds("{}={}".format, FLAGS, VALUES), min_size=1, max_size=2)
FILES = st.lists(st.builds("{}: {}".format, KEYS, VALUES), min_size=1, max_size=3)


def check_configuration(arguments: list[str], lines: list[str], kind: str) -> None:
    """Plan with arguments and a file of these lines: it works, or the input is wrong."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "file.yaml")
        block = "config" if kind == "preset" else "all"
        text = f"{block}:\n" + "".join(f"  {line}\n" for line in lines)
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        given = [f"--{kind}={file}"] if lines else []
        arguments = [each.replace("\0", "") for each in arguments]
        told([*TRAIN, *arguments, *given, "--dry-run"], codes=(0, 2))
        assert os.listdir(folder) == ["file.yaml"]  # noqa: PTH208


@settings(max_examples=12, deadline=None, derandomize=True)
@given(ARGUMENTS, st.just([]) | FILES, st.sampled_from(["preset", "dst"]))
def test_no_configuration_gives_a_traceback(
    arguments: list[str], lines: list[str], kind: str
) -> None:
    check_configuration(arguments, lines, kind)


@pytest.mark.soak
@settings(max_examples=300, deadline=None)
@given(ARGUMENTS, st.just([]) | FILES, st.sampled_from(["preset", "dst"]))
def test_no_configuration_of_many_gives_a_traceback(
    arguments: list[str], lines: list[str], kind: str
) -> None:
    check_configuration(arguments, lines, kind)


# --- damaged files ------------------------------------------------------------------------------

CUTS = st.tuples(st.integers(0, 10_000), st.integers(0, 40))
BYTES = st.binary(max_size=6) | st.sampled_from(
    [
        b"[" * 3000,
        b"&a [*a]",
        b"\x00",
        b"\x1b[2J",
        b"1e400",
        b"NaN",
        b"-1e308",
        b'"',
        b"\n",
        b"9" * 5000,
    ]
)
NAMES = st.sampled_from(["config.yaml", "summary.json", "eval.csv", "policy.safetensors"])


def check_damage(name: str, cut: tuple[int, int], added: bytes) -> None:
    """Damage one file of a run beside a whole one: the table shows the whole one's return."""
    with TemporaryDirectory() as folder:
        root = Path(folder)
        whole = {1000: [2.0, 4.0]}
        costs = {"parameters": {"sok_active": 1, "sok_dense": 2}, "flops": {"test": 1.0}}
        write_run(root, "Hopper-v5/td3-rlx2/s0.9/seed0", whole)
        run = write_run(root, "Ant-v5/td3-rlx2/s0.9/seed1", whole, summary=costs)
        write_policy(run / "policy.safetensors")
        content = (run / name).read_bytes()
        at, length = cut[0] % (len(content) + 1), cut[1]
        (run / name).write_bytes(content[:at] + added + content[at + length :])
        before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
        for style in ("csv", "json", "rich"):
            options = ("--metric=final", f"--format={style}", "--columns=params,flops")
            said = told(["table", folder, *options], codes=(0,))
            assert "Hopper" in said
            if style == "csv":
                (row,) = [line for line in said.splitlines() if "Hopper-v5" in line]
                assert ",3.0,3.0,0.0," in row
        told(["eval", str(run), "--episodes=1"], codes=(0, 2))
        assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


@settings(max_examples=8, deadline=None, derandomize=True)
@given(NAMES, CUTS, BYTES)
def test_no_damage_gives_a_traceback_or_another_runs_number(
    name: str, cut: tuple[int, int], added: bytes
) -> None:
    check_damage(name, cut, added)


@pytest.mark.soak
@settings(max_examples=300, deadline=None)
@given(NAMES, CUTS, BYTES)
def test_no_damage_of_much_gives_a_traceback_or_another_runs_number(
    name: str, cut: tuple[int, int], added: bytes
) -> None:
    check_damage(name, cut, added)
