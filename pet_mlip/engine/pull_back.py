"""Gradients over the geometry from those over what the network reads."""

from typing import Any

import torch
from torch import Tensor

from pet_mlip.network.functions import once_differentiable


def pull_back(
    outputs: list[Tensor],
    given: list[Tensor],
    leaves: list[Tensor],
    differentiable: bool,
    again: bool,
) -> list[Tensor]:
    """Take the gradient over the outputs back to the leaves; zeros where there is none.

    Args:
        outputs: Functions of the leaves; those that do not require grad are constants.
        given: Gradient over each output.
        leaves: Float64 tensors that require grad.
        differentiable: Whether the result, which is linear in ``given``, can be differentiated over
            ``given`` (not over the leaves); only outside TorchScript.
        again: Whether the same outputs will be pulled back once more.
    """
    kept: list[Tensor] = []
    kept_given: list[Tensor | None] = []
    for output, of_output in zip(outputs, given):  # noqa: B905 (TorchScript)
        if output.requires_grad:
            kept.append(output)
            kept_given.append(of_output)
    if len(kept) == 0:
        return [torch.zeros_like(leaf) for leaf in leaves]
    if not torch.jit.is_scripting() and differentiable:
        return list(_PullBack.apply(kept, leaves, *kept_given))  # type: ignore[no-untyped-call]
    found = torch.autograd.grad(kept, leaves, kept_given, retain_graph=again, allow_unused=True)
    gradient: list[Tensor] = []
    for k, leaf in enumerate(leaves):
        of_leaf = found[k]
        gradient.append(torch.zeros_like(leaf) if of_leaf is None else of_leaf)
    return gradient


class _PullBack(torch.autograd.Function):
    """J^T g, whose derivative over g is multiplied by J.

    J v comes from differentiating J^T g over g once more; nothing is differentiated over the
    leaves, which autograd would do if it recorded the first derivative.
    """

    @staticmethod
    def forward(ctx: Any, outputs: list[Tensor], leaves: list[Tensor], *given: Tensor) -> Any:
        ctx.outputs, ctx.leaves = outputs, leaves
        return torch.autograd.grad(
            outputs, leaves, given, retain_graph=True, allow_unused=True, materialize_grads=True
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *vectors: Tensor) -> tuple[Any, ...]:
        with torch.enable_grad():
            given = [torch.zeros_like(x, requires_grad=True) for x in ctx.outputs]
            gradient = torch.autograd.grad(
                ctx.outputs,
                ctx.leaves,
                given,
                create_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            products = torch.autograd.grad(
                gradient, given, vectors, allow_unused=True, materialize_grads=True
            )
        return (None, None, *products)
