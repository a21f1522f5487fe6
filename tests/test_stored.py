"""`config.yaml` as runs stored it: today's format, older ones, and reading it quickly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dstrl_cli.config.identity import NOT_IDENTITY, differences, sparsity_label
from dstrl_cli.config.keys import flatten, keys
from dstrl_cli.config.parse import from_dict, to_dict
from dstrl_cli.config.presets import load_sweep_preset
from dstrl_cli.config.resolving import resolve
from dstrl_cli.config.stored import (
    ADDED_KEYS,
    FORMAT,
    parse_document,
    stored_sparsity_label,
    up_to_date,
)
from dstrl_cli.errors import InputError
from dstrl_cli.report.runs import load
from dstrl_cli.runs.folder import RunFolder, read_config

EARLIEST = Path(__file__).parent / "earliest_runs"
"""Real runs of the first format, with the fewest keys."""

FOLDERS = sorted(path.parent for path in EARLIEST.glob("*/*/*/*/config.yaml"))


def stored(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text())
    return document


# --- the earliest runs ----------------------------------------------------------------------------


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(EARLIEST)))
def test_an_early_run_keeps_every_value_and_says_what_it_did(folder: Path) -> None:
    before = stored(folder)
    del before["run"]
    after = flatten(to_dict(read_config(folder)))
    assert {key: after[key] for key in flatten(before)} == flatten(before)
    assert {key: after[key] for key in after.keys() - flatten(before)} == ADDED_KEYS


def test_every_key_that_an_early_run_lacks_is_listed_with_what_it_did() -> None:
    """A new key needs a line in ADDED_KEYS, and one that these runs have is listed in vain."""
    assert FOLDERS
    lacking = {key for folder in FOLDERS for key in set(keys()) - set(flatten(stored(folder)))}
    assert lacking == set(ADDED_KEYS)


def test_early_runs_are_reported_where_they_lie() -> None:
    results = load(EARLIEST)
    assert len(results.runs) == 4
    for run in results.runs:
        who = run.identity
        parts = (who.env, f"{who.algo}-{who.method}", who.sparsity, f"seed{who.seed}")
        assert run.path == "/".join(parts)
        assert len(run.evaluations["step"]) > 0
        assert len(run.episodes["step"]) > 0
    assert results.damaged == []


# --- formats --------------------------------------------------------------------------------------


def test_the_format_is_the_first_key_that_is_written(tmp_path: Path) -> None:
    RunFolder(tmp_path).create(to_dict(resolve("dst")) | {"run": {}}).close()
    assert (tmp_path / "config.yaml").read_text().startswith(f"format: {FORMAT}\n")
    assert read_config(tmp_path) == resolve("dst")


def test_keys_that_a_document_has_are_kept_and_the_document_is_not_changed() -> None:
    document = {"algo": "td3", "compile": True, "env": {"id": "Hopper-v5"}}
    current = up_to_date(document)
    env = {"id": "Hopper-v5", "flatten": False, "noise_features": 0.0, "timeout": None}
    added = {key: value for key, value in ADDED_KEYS.items() if "." not in key}
    assert current == {**added, **document, "env": env}
    assert "env" not in up_to_date({})  # a block that is missing stays missing
    assert up_to_date({"env": "Hopper-v5"})["env"] == "Hopper-v5"
    assert document == {"algo": "td3", "compile": True, "env": {"id": "Hopper-v5"}}


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (3, "format = 3 is of a newer dstrl, this one reads up to 2: update dstrl"),
        ("2", "format = '2': must be a whole number from 1 to 2"),
        (True, "format = True: must be"),
        (None, "format = None: must be"),
        (0, "format = 0: must be"),
    ],
)
def test_an_unknown_format_is_refused(tmp_path: Path, found: Any, message: str) -> None:
    text = yaml.safe_dump({**to_dict(resolve("dst")), "format": found})
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        read_config(tmp_path)
    assert message in str(error.value)


# --- labels of what was trained -------------------------------------------------------------------

LAMBDA = {"allocation": "lambda", "lambdas": [7, 64]}


def test_a_run_of_format_1_with_lambdas_is_never_taken_for_one_of_the_default_sparsity(
    tmp_path: Path,
) -> None:
    """It was filed as s0.95; the sparsity that its lambdas give is stored inside."""
    wanted = resolve("dst", flags={"sparsity": 0.95})
    config = to_dict(wanted) | {"run": {}}
    for network, sparsity in (("actor", 0.493), ("critic", 0.512)):
        config[network] |= {"sparsity": sparsity, **LAMBDA}
    folder = tmp_path / "HalfCheetah-v5/td3-dst/s0.95/seed0"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert stored_sparsity_label(flatten(config)) == "a0.493-c0.512"
    assert "actor.sparsity: 0.493 -> 0.95" in differences(read_config(folder), wanted)
    with pytest.raises(InputError, match="holds another configuration"):
        RunFolder(folder).create(to_dict(wanted))


@pytest.mark.parametrize(
    ("actor", "label"),
    [
        ({"sparsity": 0.9}, "a0.9-c0.8"),
        ({"sparsity": 0.8}, "s0.8"),
        ({"sparsity": 0.9, "dense": True}, "a0-c0.8"),
        ({"sparsity": 0.9, "dense": True, "match_parameters": True}, "a0.9-c0.8"),
        ({}, None),
        ({"sparsity": "much"}, None),
    ],
)
def test_the_label_is_that_of_the_networks(actor: dict[str, Any], label: str | None) -> None:
    config = {"actor": actor, "critic": {"sparsity": 0.8, "dense": False}}
    assert stored_sparsity_label(flatten(config)) == label


def test_labels_agree_with_the_folders_of_new_runs() -> None:
    for method in ("dense", "tiny", "dst"):
        config = resolve(method)
        assert stored_sparsity_label(flatten(to_dict(config))) == sparsity_label(config)


# --- what only says how a run is shown ------------------------------------------------------------


def test_metric_and_names_do_not_make_another_run() -> None:
    config = resolve("dst")
    shown = {"metric": "final", "method_label": "mine", "method_order": 3}
    assert shown.keys() <= NOT_IDENTITY
    assert differences(config, from_dict(to_dict(config) | shown)) == []


def test_a_preset_says_its_metric_and_a_flag_another() -> None:
    preset = load_sweep_preset("quick")
    assert resolve("sst", preset=preset).metric == "last-steps:1000"
    assert resolve("sst", preset=preset, flags={"metric": "last-evals:1e1"}).metric == (
        "last-evals:10"
    )
    assert resolve("sst").metric is None
    with pytest.raises(InputError, match=r"metric = 'median': unknown metric.*\(set by --metric\)"):
        resolve("sst", flags={"metric": "median"})


def test_only_a_users_own_method_stores_how_tables_show_it(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: rlx2\nlabel: My rule\norder: 7\n")
    config = resolve(mine)
    assert (config.method, config.method_label, config.method_order) == ("mine", "My rule", 7)
    covered = resolve(mine, ours=True)
    assert (covered.method, covered.method_label) == ("our-mine", "Our My rule")
    shipped = resolve("our-rlx2")
    assert (shipped.method_label, shipped.method_order) == (None, None)


# --- reading it quickly ---------------------------------------------------------------------------


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(EARLIEST)))
def test_a_stored_document_is_read_as_yaml_reads_it(folder: Path) -> None:
    text = (folder / "config.yaml").read_text()
    assert parse_document(text) == yaml.safe_load(text)
    assert parse_document(text) == yaml.safe_load(text)  # from what was kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment\n",
        "a: 1\n# comment\nb: 2\n",
        "---\na: 1\n",
        "- [a, 1]\n- [b, 2]\n",
        "- 1\na: 2\n",
        " a: 1\n",
        "a: &x [1]\nb: *x\n",
        "a: {\nb: 1}\n",
        "a: |\n  text\n\n  more\nb: 'it''s'\n",
        'a: "x\n  y: z"\nb: 2\n',
        "a:\n- 1\n- b: 2\n  c: 3\nd:\n",
        "a: 1\na: 2\n",
        "a: long text that\n  goes on\nb: 2\n",
        "a:b\n",
        "a: 1\nb\n",
        "a: [1\n",
        "{",
        "\x00",
    ],
)
def test_any_text_means_what_yaml_says_or_is_an_error(text: str) -> None:
    try:
        expected = yaml.safe_load(text)
    except yaml.YAMLError:
        with pytest.raises(yaml.YAMLError):
            parse_document(text)
    else:
        assert parse_document(text) == expected
