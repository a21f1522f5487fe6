"""What `dstrl inspect` says of an agent: degrees, hubs, dead neurons, inputs, changes, pictures."""

import json
from pathlib import Path

import numpy as np
import pytest

from dstrl_cli import envs
from dstrl_cli.cli import main
from dstrl_cli.envs.observed import Names, entry_names
from dstrl_cli.errors import InputError
from dstrl_cli.report.inside import Layer, look, share_of_strongest
from dstrl_cli.runs.policy import dump, network_tensors, policy_metadata
from dstrl_cli.terminal import inspected

FIRST = np.array([[1, 0, 1], [0, 0, 1]])  # two inputs, three neurons
LAST = np.array([[0], [1], [1]])
START = np.array([[1, 1, 0], [0, 1, 0]])


def write_policy(file: Path, masks: dict[str, list[np.ndarray]], env: str = "2DNav-v1") -> None:
    tensors = {}
    for name, layers in masks.items():
        biases = [np.zeros(mask.shape[1]) for mask in layers]
        tensors |= network_tensors(name, layers, biases, layers)
    metadata = policy_metadata(
        algo="td3",
        env=env,
        task=None,
        observation_size=masks["actor"][0].shape[0],
        action_size=masks["actor"][-1].shape[1],
        action_low=[-1.0] * masks["actor"][-1].shape[1],
        action_high=[1.0] * masks["actor"][-1].shape[1],
        hidden_sizes=[mask.shape[1] for mask in masks["actor"][:-1]],
        step=1000,
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(dump(tensors, metadata))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_policy(tmp_path / "run/policy.safetensors", {"actor": [FIRST, LAST]})
    write_policy(tmp_path / "run/initial.safetensors", {"actor": [START, LAST]})
    (tmp_path / "run/topology.csv").write_text(
        "step,network,layer,active,dropped,grown,fraction\n"
        "100,actor,0,3,2,2,0.5\n"
        "100,actor,1,2,1,1,0.5\n"
        "200,actor,0,3,0,0,0.1\n"
        "200,actor,1,2,1,1,0.1\n"
        "1100,actor,0,3,3,3,0.1\n"  # after the policy
    )
    return tmp_path / "run"


def test_degrees_dead_neurons_and_flops_are_counted_from_the_masks(run: Path):
    (actor,) = look(run).networks
    first, last = actor.layers
    assert (first.active, first.possible) == (3, 6)
    assert (first.fan_in.tolist(), first.fan_out.tolist()) == ([1, 0, 2], [2, 1])
    assert last.fan_in.tolist() == [2]
    assert (actor.without_input(0), actor.without_output(0), actor.dead(0)) == (1, 1, 2)
    assert actor.dead(1) == 0
    assert (actor.active, actor.possible, actor.flops) == (5, 9, (10, 18))
    assert actor.kept == pytest.approx(3 / 5)  # of 3 in the first layer one is old


def test_the_share_of_the_ten_strongest_neurons():
    assert share_of_strongest(np.array([5] * 10 + [1] * 50)) == 0.5
    assert share_of_strongest(np.zeros(4, dtype=int)) == 0


def test_a_neuron_that_holds_most_inputs_is_a_hub():
    mask = np.eye(256, dtype=bool)
    mask[:239, 17] = True
    assert Layer(mask).hub == 17
    assert Layer(np.eye(256, dtype=bool)).hub is None
    assert Layer(np.ones((8, 8), dtype=bool)).hub is None  # dense: as many as all others


def test_the_screen_shows_a_hub_at_a_glance(tmp_path: Path, capsys):
    hidden = np.eye(256, dtype=bool)
    hidden[:239, 17] = True
    masks = [np.ones((2, 256)), hidden, np.ones((256, 2))]
    write_policy(tmp_path / "policy.safetensors", {"actor": masks, "critic1": masks})
    assert main(["inspect", str(tmp_path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "hub: critic1, layer 1: one neuron of 256 (number 17) holds 239 of 256 inputs" in said
    assert "239/256" in said
    assert "initial.safetensors is missing" in said


def test_changes_are_summed_over_layers_up_to_the_step_of_the_policy(run: Path):
    change = look(run).changes["actor"]
    assert change.steps.tolist() == [100, 200]
    assert change.grown.tolist() == [3, 1]
    assert change.exchanged.tolist() == [0.6, 0.2]


def test_several_updates_at_one_step_are_several(run: Path):
    rows = "1000,actor,0,3,1,1,0.5\n1000,actor,1,2,1,1,0.5\n"
    header = "step,network,layer,active,dropped,grown,fraction\n"
    (run / "topology.csv").write_text(header + 2 * rows)
    change = look(run).changes["actor"]
    assert (change.steps.tolist(), change.active.tolist()) == ([1000, 1000], [5, 5])


def test_degrees_are_counted_in_steps_of_two():
    layer = Layer(np.triu(np.ones((9, 9), dtype=bool)))  # fan-in 1, 2, ..., 9
    assert inspected.degree_counts(layer) == [0, 1, 2, 4, 2]
    assert inspected.bars([0, 1, 8]) == " ▁█"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_tables_fit_the_terminal(run: Path, monkeypatch, capsys, width):
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["inspect", str(run)]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "actor" in line]
    assert all("…" not in line for line in rows)


def test_everything_is_there_for_programs(run: Path, capsys):
    assert main(["inspect", str(run), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    actor = said["networks"]["actor"]
    assert actor["inputs"] == [{"name": "x", "connections": 2}, {"name": "y", "connections": 1}]
    assert actor["layers"][0]["fan_in"] == [1, 0, 2]
    assert (actor["active"], actor["dense"], actor["kept_since_start"]) == (5, 9, 0.6)
    assert said["topology"]["actor"]["dropped"] == [3, 1]


def test_dormant_neurons_come_from_the_last_evaluation(run: Path):
    (run / "neurons.csv").write_text(
        "step,network,layer,dormant\n0,actor,0,1.0\n1000,actor,0,0.6666666666666666\n"
        "1000,actor,1,\n"
    )
    assert [layer.dormant for layer in look(run).networks[0].layers] == [2, None]  # 2 of 3
    with (run / "neurons.csv").open("a") as file:
        file.write("2000,actor,0,0.3333333333333333\n")  # after the policy, as one of the best has
    assert [layer.dormant for layer in look(run).networks[0].layers] == [2, None]


def test_pictures_are_drawn(run: Path, tmp_path: Path, capsys):
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    out = tmp_path / "pictures"
    assert main(["inspect", str(run), "--out", str(out)]) == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == ["fan-in.png", "inputs.png", "masks-actor.png"]
    assert str(out / "inputs.png") in "".join(capsys.readouterr().out.split("\n"))


# --- names of inputs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "some"),
    [
        ("HalfCheetah-v5", {0: "rootz", 1: "rooty", 8: "rootx velocity", 16: "ffoot velocity"}),
        ("HalfCheetah-v3", {0: "rootz", 16: "ffoot velocity"}),
        ("Hopper-v5", {2: "thigh_joint", 5: "rootx velocity"}),
        ("Ant-v5", {0: "root z", 5: "hip_1", 13: "root x velocity", 27: "torso contact torque x"}),
        ("Ant-v3", {0: "root z", 27: "world contact torque x"}),
        ("Humanoid-v5", {0: "root z", 22: "root x velocity", 45: "torso inertia 0"}),
        ("Humanoid-v3", {45: "world inertia 0"}),
        ("Reacher-v2", {0: "cos joint0", 10: "fingertip - target z"}),
        ("ReacherNav", {4: "target x"}),
        ("AntNav", {0: "root z"}),
        ("InvertedPendulum-v5", {0: "slider", 1: "hinge", 3: "hinge velocity"}),
        ("2DNav-v2", {0: "x", 1: "y"}),
        ("Pendulum-v1", {0: "cos theta", 2: "theta velocity"}),
    ],
)
def test_inputs_are_named_by_what_they_are(env, some):
    spec = envs.spec(env)
    found = entry_names(spec)
    assert len(found.observations) == spec.observation_size
    assert {number: found.observations[number] for number in some} == some
    assert found.actions is None or len(found.actions) == spec.action_size


def test_what_is_not_known_is_numbered():
    names = inspected.input_names(Names(None, None), 2, 1)
    assert names == ["x0", "x1", "action 0"]
    with_noise = inspected.input_names(Names(["x", "y"], ["force"]), 3, 1)  # the agent has three
    assert with_noise == ["x0", "x1", "x2", "action force"]


def test_an_agent_of_an_environment_with_noise_features_is_shown(tmp_path: Path, capsys):
    masks = [
        np.ones((5, 3)),
        np.ones((3, 2)),
    ]  # 2DNav: two observations, three of noise
    write_policy(tmp_path / "policy.safetensors", {"actor": masks, "critic1": masks}, "2DNav-v1")
    assert main(["inspect", str(tmp_path)]) == 0
    assert " x4 " in capsys.readouterr().out


# --- bad input ------------------------------------------------------------------------------------


def test_a_folder_without_a_policy_is_refused(tmp_path: Path, capsys):
    assert main(["inspect", str(tmp_path)]) == 2
    assert "holds no policy.safetensors" in " ".join(capsys.readouterr().err.split())
    assert main(["inspect", str(tmp_path / "nowhere")]) == 2
    assert "does not exist" in " ".join(capsys.readouterr().err.split())


def test_masks_that_are_no_network_are_refused(tmp_path: Path):
    write_policy(tmp_path / "policy.safetensors", {"actor": [FIRST, LAST[:2]]})
    with pytest.raises(InputError, match="no layers of a network"):
        look(tmp_path)


def test_masks_of_other_networks_at_the_start_are_told_and_left_out(run: Path):
    write_policy(run / "initial.safetensors", {"actor": [FIRST[:1], LAST]})
    found = look(run)
    assert found.networks[0].kept is None
    assert "holds other networks" in found.problems[0]
