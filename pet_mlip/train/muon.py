"""Muon: momentum with orthogonalised updates for matrices, AdamW for everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# Coefficients of the quintic iteration that drives all singular values towards one (Jordan et al.,
# "Muon: an optimizer for hidden layers in neural networks", 2024).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """One optimizer for a whole model.

    Groups with ``matrix=True`` hold matrices: their momentum is replaced by the nearest
    semi-orthogonal matrix, scaled so that its elements have the size of an AdamW step. The other
    groups are stepped by AdamW. torch.optim.Muon does the same in bfloat16, which a CPU without
    matrix units runs several times slower than the model's own step, and knows matrices only.

    Args:
        groups: Parameter groups with keys params, matrix, weight_decay.
        lr: Learning rate of all groups.
        momentum: Of the matrices (Nesterov).
        betas: Of AdamW.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "weight_decay": 0.0}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step; the closure, if given, evaluates loss and gradients first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            for p in parameters:
                p.mul_(1.0 - group["lr"] * group["weight_decay"])
            if group["matrix"]:
                self._step_matrices(parameters, group["lr"], group["momentum"])
            else:
                self._step_adam(parameters, group["lr"], group["betas"])
        return loss

    def _step_matrices(self, parameters: list[Tensor], lr: float, momentum: float) -> None:
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for p in parameters:
            by_shape.setdefault(p.shape, []).append(p)
        for shape, members in by_shape.items():
            updates = []
            for p in members:
                assert p.grad is not None
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1.0 - momentum)
                updates.append(p.grad.lerp(buffer, momentum))
            directions = orthogonalize(torch.stack(updates))
            size = 0.2 * max(shape) ** 0.5
            for p, direction in zip(members, directions, strict=True):
                p.sub_(direction, alpha=lr * size)

    def _step_adam(self, parameters: list[Tensor], lr: float, betas: tuple[float, float]) -> None:
        for p in parameters:
            assert p.grad is not None
            state = self.state[p]
            if not state:
                state["step"] = torch.zeros(())
                state["mean"] = torch.zeros_like(p)
                state["square"] = torch.zeros_like(p)
            state["step"] += 1
            step = float(state["step"])
            state["mean"].lerp_(p.grad, 1.0 - betas[0])
            state["square"].lerp_(p.grad * p.grad, 1.0 - betas[1])
            root = (state["square"] / (1.0 - betas[1] ** step)).sqrt_().add_(1e-8)
            p.addcdiv_(state["mean"], root, value=-lr / (1.0 - betas[0] ** step))


def orthogonalize(matrices: Tensor) -> Tensor:
    """Nearest semi-orthogonal matrix of each, to about 30 % in its singular values, (K, m, n)."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-12)
    for _ in range(ITERATIONS):
        square = x @ x.transpose(1, 2)
        x = a * x + (b * square + c * square @ square) @ x
    return x.transpose(1, 2) if tall else x
