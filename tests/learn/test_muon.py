from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from tinyvla.data.batch import TensorSplit
from tinyvla.data.dataset import BlockFind
from tinyvla.errors import InputError
from tinyvla.learn.callbacks import OnEpoch
from tinyvla.learn.checkpoint import RunFolder, RunSettings
from tinyvla.learn.muon import Muon, orthogonalize
from tinyvla.learn.optimizer import make_optimizer
from tinyvla.learn.train import fit
from tinyvla.model.policy import new_policy
from tinyvla.model.tokenizer import encode
from tinyvla.recipes import DataConfig, TrainConfig

MUON = TrainConfig(epochs=2, batch_size=32, optimizer="muon", learning_rate=3e-3)


@pytest.mark.parametrize("shape", [(3, 20, 50), (3, 50, 20), (2, 16)])
def test_singular_values_come_near_one_and_their_vectors_stay(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    made = u.mT @ orthogonalize(matrices) @ vh.mT  # diagonal if the vectors are the same
    values = made.diagonal(dim1=-2, dim2=-1)
    assert (made - torch.diag_embed(values)).abs().max() < 0.01
    assert 0.6 < values.min() < values.max() < 1.3


def test_matrices_of_one_shape_or_its_transpose_do_not_disturb_each_other():
    torch.manual_seed(0)
    together = [nn.Parameter(torch.randn(4, 8)), nn.Parameter(torch.randn(8, 4)), nn.Parameter(torch.randn(4, 8))]
    alone = [nn.Parameter(p.detach().clone()) for p in together]
    bias = nn.Parameter(torch.zeros(3))
    gradients = [torch.randn_like(p) for p in together]
    optimizers = [Muon(together, [bias], lr=0.1), *(Muon([p], [bias], lr=0.1) for p in alone)]
    for _ in range(2):
        for parameter, gradient in zip([*together, *alone], gradients * 2, strict=True):
            parameter.grad = gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b)


def test_an_update_is_as_large_as_adamws():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(64, 256))
    optimizer = Muon([weight], [nn.Parameter(torch.zeros(1))], lr=0.01, weight_decay=0.0)
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    assert weight.detach().square().mean().sqrt().item() == pytest.approx(0.2 * 0.01, rel=0.15)


def test_embeddings_biases_and_norms_are_left_to_adamw(tiny_config):
    policy = new_policy(tiny_config, 0)
    (others, matrices) = make_optimizer(policy, MUON).param_groups
    assert matrices["muon"]
    assert not others.get("muon")
    assert others["weight_decay"] == 0
    assert all(p.ndim == 2 for p in matrices["params"])
    assert any(p is policy.language.token_embedding.weight for p in others["params"])


def test_momentum_and_iterations_are_the_configurations(tiny_config):
    settings = dataclasses.replace(MUON, momentum=0.8, newton_schulz=3)
    optimizer = make_optimizer(new_policy(tiny_config, 0), settings)
    assert (optimizer.momentum, optimizer.iterations) == (0.8, 3)


@pytest.mark.parametrize("iterations", [1, 3])
def test_fewer_iterations_leave_small_singular_values_small(iterations):
    u, _, vh = torch.linalg.svd(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))
    skewed = u @ torch.diag(torch.logspace(0, -3, 8)) @ vh
    weight = nn.Parameter(torch.zeros(8, 8))
    optimizer = Muon([weight], [nn.Parameter(torch.zeros(1))], lr=1.0, iterations=iterations, momentum=0.0)
    weight.grad = skewed.clone()
    optimizer.step()
    torch.testing.assert_close(weight.detach(), -0.2 * 8**0.5 * orthogonalize(skewed, iterations))
    few, many = (torch.linalg.svdvals(orthogonalize(skewed, n)).min() for n in (iterations, iterations + 2))
    assert few < many


def test_it_learns_and_resumes_exactly(tiny_config, tmp_path):
    splits = [TensorSplit.from_blockfind(BlockFind(n, s), encode) for n, s in ((256, 42), (64, 43))]
    unbroken = new_policy(tiny_config, 0)
    records = fit(unbroken, *splits, MUON)
    assert records[-1]["train_loss"] < records[0]["train_loss"]

    class Stop(Exception): ...

    def stop(record):
        raise Stop

    run = RunFolder(tmp_path / "run")
    run.start(RunSettings(tiny_config, MUON, DataConfig()), {}, overwrite=False)
    with pytest.raises(Stop):
        fit(new_policy(tiny_config, 0), *splits, MUON, run=run, callbacks=[OnEpoch(stop)])
    resumed = new_policy(tiny_config, 99)
    fit(resumed, *splits, MUON, run=run)
    for a, b in zip(unbroken.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(InputError, match="adamw, muon"):
        dataclasses.replace(TrainConfig(), optimizer="sgd")
