"""TD3 and SAC against plain single-network versions written with ordinary torch modules."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from network_samples import as_module, soft_update
from torch import nn
from torch.nn import functional
from update_samples import take_update

from dstrl_cli import streams
from dstrl_cli.algos.sac import SAC
from dstrl_cli.algos.td3 import TD3
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import from_dict
from dstrl_cli.replay.base import Replay, Transition
from dstrl_cli.replay.batch import Batch
from dstrl_cli.replay.paired import PairedReplay

OBS, ACT, ROWS, UPDATES = 5, 2, 16, 50
RATE = 3e-3  # large steps make differences show


def config(algo: str, **keys) -> RunConfig:
    base = {
        "algo": algo,
        "method": "dense",
        "env": "Any-v0",
        "batch_size": ROWS,
        "hidden_sizes": [12, 9],
        "learning_rate": RATE,
        "policy_delay": 2 if algo == "td3" else 1,
        "actor": {"dense": True},
        "critic": {"dense": True},
    }
    return from_dict(base | keys)


def filled_replay(members: int = 1, steps: int = 200) -> Replay:
    replay = PairedReplay(members, steps, OBS, ACT, 0.99)
    g = torch.Generator().manual_seed(5)
    observation = torch.randn(members, OBS, generator=g)
    for step in range(steps):
        following = torch.randn(members, OBS, generator=g)
        ended = torch.full((members,), step % 11 == 10)
        replay.add(
            Transition(
                observation,
                torch.rand(members, ACT, generator=g) * 2 - 1,
                torch.randn(members, generator=g),
                following,
                ended & (step % 2 == 0),
                ended,
            )
        )
        observation = following
    return replay


def batches(replay: Replay, n: int, count: int = UPDATES) -> list[Batch]:
    g = torch.Generator().manual_seed(9)
    members = len(replay.size)
    nstep = torch.full((members, 1), n)
    return [
        replay.sample(torch.rand(members, ROWS, generator=g, dtype=torch.float64), nstep, n)
        for _ in range(count)
    ]


def assert_same(network, plain: list[nn.Sequential]) -> None:
    for head, module in enumerate(plain):
        linears = [layer for layer in module if isinstance(layer, nn.Linear)]
        for linear, (weight, bias, _) in zip(linears, network.layers(0), strict=True):
            torch.testing.assert_close(weight[head].T, linear.weight, rtol=2e-4, atol=2e-5)
            torch.testing.assert_close(bias[head], linear.bias, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
def test_dense_td3_equals_a_plain_td3(weight_decay: float) -> None:
    run = config("td3", seed=3, weight_decay=weight_decay)
    algorithm = TD3([run], OBS, ACT)
    actor, critics = as_module(algorithm.actor), [as_module(algorithm.critic, k) for k in (0, 1)]
    actor_target, critic_targets = copy.deepcopy(actor), copy.deepcopy(critics)
    parameters = [p for c in critics for p in c.parameters()]
    critic_adam = torch.optim.Adam(parameters, RATE, weight_decay=weight_decay)
    actor_adam = torch.optim.Adam(actor.parameters(), RATE, weight_decay=weight_decay)
    noise = streams.normal([3], "target_noise", (ROWS, ACT))
    for number, batch in enumerate(batches(filled_replay(), 1)):
        s, a, s2 = batch.observation[0], batch.action[0], batch.next_observation[0]
        with torch.no_grad():
            smoothing = (noise.at(number)[0] * 0.2).clamp(-0.5, 0.5)
            a2 = (actor_target(s2).tanh() + smoothing).clamp(-1, 1)
            q2 = torch.min(*[c(torch.cat([s2, a2], -1)).squeeze(-1) for c in critic_targets])
            y = batch.reward[0] + batch.discount[0] * q2
        loss = sum(functional.mse_loss(c(torch.cat([s, a], -1)).squeeze(-1), y) for c in critics)
        critic_adam.zero_grad()
        loss.backward()
        critic_adam.step()
        if number % 2 == 1:
            actor_loss = -critics[0](torch.cat([s, actor(s).tanh()], -1)).mean()
            actor_adam.zero_grad()
            actor_loss.backward()
            actor_adam.step()
            soft_update(actor_target, actor, 0.005)
            for theirs, ours in zip(critic_targets, critics, strict=True):
                soft_update(theirs, ours, 0.005)
        with torch.no_grad():
            take_update(algorithm, batch)
    assert_same(algorithm.actor, [actor])
    assert_same(algorithm.critic, critics)


def plain_sample(module: nn.Module, s: torch.Tensor, noise: torch.Tensor, squash: str):
    """Reparameterised action and log-probability through torch.distributions."""
    mean, raw = module(s).chunk(2, -1)
    if squash == "tanh":
        log_std = -5 + 0.5 * 7 * (raw.tanh() + 1)
    else:
        log_std = raw.clamp(-20, 2)
    normal = torch.distributions.Normal(mean, log_std.exp())
    u = mean + log_std.exp() * noise
    action = u.tanh()
    tanh = torch.distributions.transforms.TanhTransform()
    log_prob = normal.log_prob(u) - tanh.log_abs_det_jacobian(u, action)
    return action, log_prob.sum(-1)


@pytest.mark.parametrize(
    ("nstep", "keys"),
    [
        (1, {}),
        (3, {}),
        (1, {"temperature": "fixed", "alpha": 0.2, "tau": 1.0, "target_update_interval": 7,
             "log_std_squash": "clamp", "log_std_bounds": [-20, 2], "weight_init": "xavier"}),
    ],
    ids=["learned", "three steps", "fixed and hard"],
)  # fmt: skip
def test_dense_sac_equals_a_plain_sac(nstep: int, keys: dict) -> None:
    run = config("sac", seed=6, nstep=nstep, **keys)
    algorithm = SAC([run], OBS, ACT)
    actor, critics = as_module(algorithm.actor), [as_module(algorithm.critic, k) for k in (0, 1)]
    critic_targets = copy.deepcopy(critics)
    critic_adam = torch.optim.Adam([p for c in critics for p in c.parameters()], RATE)
    actor_adam = torch.optim.Adam(actor.parameters(), RATE)
    log_alpha = torch.tensor(math.log(run.alpha), requires_grad=True)
    alpha_adam = torch.optim.Adam([log_alpha], RATE)
    policy_noise = streams.normal([6], "policy_noise", (ROWS, ACT))
    target_noise = [streams.normal([6], f"target_noise{k}", (ROWS, ACT)) for k in range(nstep)]
    squash = run.log_std_squash
    for number, batch in enumerate(batches(filled_replay(), nstep)):
        s, a = batch.observation[0], batch.action[0]
        alpha = log_alpha.exp().detach()
        with torch.no_grad():
            y = batch.reward[0].clone()
            bootstrap = torch.zeros(ROWS, ACT)
            for k in range(nstep):
                drawn, log_prob = plain_sample(
                    actor, batch.path[k][0], target_noise[k].at(number)[0], squash
                )
                y -= alpha * batch.path_discount[k][0] * log_prob
                chosen = batch.last[0] == k
                bootstrap[chosen] = drawn[chosen]
            x = torch.cat([batch.next_observation[0], bootstrap], -1)
            y += batch.discount[0] * torch.min(*[c(x).squeeze(-1) for c in critic_targets])
        loss = sum(functional.mse_loss(c(torch.cat([s, a], -1)).squeeze(-1), y) for c in critics)
        critic_adam.zero_grad()
        loss.backward()
        critic_adam.step()
        action, log_prob = plain_sample(actor, s, policy_noise.at(number + 1)[0], squash)
        q = torch.min(*[c(torch.cat([s, action], -1)).squeeze(-1) for c in critics])
        actor_adam.zero_grad()
        (alpha * log_prob - q).mean().backward()
        actor_adam.step()
        if run.temperature == "learned":
            alpha_adam.zero_grad()
            (log_alpha.exp() * (-log_prob.detach() + ACT)).mean().backward()
            alpha_adam.step()
        if (number + 1) % run.target_update_interval == 0:
            for theirs, ours in zip(critic_targets, critics, strict=True):
                soft_update(theirs, ours, run.tau)
        with torch.no_grad():
            take_update(algorithm, batch)
    assert_same(algorithm.actor, [actor])
    assert_same(algorithm.critic, critics)
    torch.testing.assert_close(algorithm.log_alpha[0, 0], log_alpha.detach(), rtol=1e-4, atol=1e-5)


def test_time_limits_bootstrap_and_terminations_do_not() -> None:
    replay = PairedReplay(1, 2, OBS, ACT, 0.9)
    one = torch.ones(1)
    for terminated in (True, False):
        ends = torch.tensor([terminated]), torch.tensor([not terminated])
        start, after = torch.zeros(1, OBS), torch.ones(1, OBS)
        replay.add(Transition(start, torch.zeros(1, ACT), one, after, *ends))
    batch = replay.sample(torch.tensor([[0.1, 0.9]], dtype=torch.float64), torch.ones(1, 1), 1)
    assert batch.discount.tolist() == [[0.0, pytest.approx(0.9)]]


def test_a_member_whose_loss_is_not_finite_is_frozen_and_the_others_train_on() -> None:
    runs = [config("td3", seed=seed) for seed in (0, 1)]
    algorithm = TD3(runs, OBS, ACT)
    replay = filled_replay(members=2)
    replay.reward[1, :] = math.nan
    before = [[part.clone() for part in layer] for layer in algorithm.critic.layers(1)]
    with torch.no_grad():
        for batch in batches(replay, 1, 4):
            take_update(algorithm, batch)
    assert algorithm.alive.tolist() == [True, False]
    for was, now in zip(before, algorithm.critic.layers(1), strict=True):
        for a, b in zip(was, now, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert all(weight.isfinite().all() for weight, _, _ in algorithm.critic.layers(0))
    assert algorithm.critic.layers(0)[0][0].ne(before[0][0]).any()
