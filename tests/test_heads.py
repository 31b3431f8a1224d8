from __future__ import annotations

import torch
import torch.nn.functional as F

from tinyvla.heads import RegressionHead


def test_actions_stay_within_bounds(tiny_config):
    head = RegressionHead(tiny_config)
    actions = head.predict(100 * torch.randn(50, 16))
    assert actions.shape == (50, 2)
    assert actions.abs().max() <= 1


def test_loss_is_the_mean_squared_error_of_the_prediction(tiny_config):
    head = RegressionHead(tiny_config)
    features, actions = torch.randn(5, 16), torch.randn(5, 2)
    torch.testing.assert_close(head.loss(features, actions), F.mse_loss(head.predict(features), actions))
