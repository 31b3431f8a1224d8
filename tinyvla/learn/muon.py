"""Muon: momentum whose update is made orthogonal, for the matrices; AdamW for everything else.

Notable:
- a gradient step on a matrix is usually ruled by a few directions. Muon replaces the update by the nearest
  (semi-)orthogonal matrix, so that all directions move alike (https://kellerjordan.github.io/posts/muon);
- updates are scaled to the size of AdamW's (https://arxiv.org/abs/2502.16982, section 2.2), so one learning rate fits
  both kinds of weights;
- matrices of one shape are orthogonalised together, in one batched product.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic that pulls singular values towards one; from the Muon post."""


def orthogonalize(
    matrices: Float[Tensor, "*b m n"], steps: int = 5, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "*b m n"]:
    """Matrices with about the same singular vectors and singular values near one, by Newton-Schulz iterations."""
    x = matrices.to(dtype).reshape(-1, *matrices.shape[-2:])
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(steps):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # b gram + c gram^2, in one pass
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.reshape(matrices.shape).to(matrices.dtype)


class Muon(torch.optim.AdamW):
    """Muon for `matrices`, AdamW for `others`.

    Args:
        matrices: weights of linear layers.
        others: embeddings, biases, norms; or parameter groups.
        momentum: of the matrices' gradients.
        iterations: of Newton-Schulz; fewer leave small singular values further from one.
        dtype: of the Newton-Schulz products; bfloat16 is enough where it is faster.
        options: of AdamW; `lr` and `weight_decay` also hold for the matrices.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        others: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        momentum: float = 0.95,
        iterations: int = 5,
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> None:
        super().__init__(others, **options)
        self.momentum = momentum
        self.iterations = iterations
        self.dtype = dtype
        self.add_param_group({"params": list(matrices), "muon": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all weights. The matrices' gradients are gone afterwards."""
        for group in self.param_groups:
            if group.get("muon"):
                self._muon_step(group)
                for parameter in group["params"]:
                    parameter.grad = None  # AdamW leaves alone what has no gradient
        return super().step(closure)

    def _muon_step(self, group: dict[str, Any]) -> None:
        """One update of the matrices, those of one shape (or its transpose) together."""
        by_shape: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                by_shape[tuple(sorted(parameter.shape))].append(parameter)
        for (_, longer), parameters in by_shape.items():
            gradients: list[Tensor] = [p.grad for p in parameters]  # type: ignore[misc]
            for parameter in parameters:
                if not self.state[parameter]:
                    self.state[parameter] = {"step": torch.zeros(()), "momentum": torch.zeros_like(parameter)}
            moments = [self.state[p]["momentum"] for p in parameters]
            torch._foreach_lerp_(moments, gradients, 1 - self.momentum)
            ahead = torch._foreach_lerp(gradients, moments, self.momentum)  # Nesterov
            wide = torch.stack([_wide(x) for x in ahead])
            # An orthogonal matrix has entries of about 1 / sqrt(longer side); AdamW's updates are about 0.2.
            updates = orthogonalize(wide, self.iterations, self.dtype) * (-0.2 * longer**0.5 * group["lr"])
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, [_like(u, p) for u, p in zip(updates, parameters, strict=True)])


def _wide(matrix: Tensor) -> Tensor:
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT


def _like(wide: Tensor, parameter: Tensor) -> Tensor:
    return wide if wide.shape == parameter.shape else wide.mT
