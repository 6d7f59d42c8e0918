"""Activation functions and normalisation, with their derivatives.

Where autograd records, nothing is overwritten; elsewhere what nobody else reads is.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate the backward of a function whose derivative autograd must not differentiate again.

    Torch's decorator of this name lets that pass, with a wrong result, where the incoming gradient
    does not depend on anything.

    Raises:
        RuntimeError: With create_graph=True.
    """

    @wraps(backward)
    def checked(ctx: Any, *grads: Tensor) -> Any:
        if torch.is_grad_enabled():  # in a backward, if there is to be a graph of it
            raise RuntimeError(
                "autograd cannot differentiate this network twice; take differences of forces, as "
                "PETCalculator.get_hessian does"
            )
        return backward(ctx, *grads)

    return checked


def silu(x: Tensor) -> Tensor:
    """Compute x sigmoid(x)."""
    return torch.nn.functional.silu(x)


def silu_vjp(grad: Tensor, x: Tensor) -> Tensor:
    """Multiply the gradient with the derivative of `silu` at x."""
    if not torch.jit.is_scripting() and torch.is_grad_enabled():
        found: Tensor = _SiluVjp.apply(grad, x)  # type: ignore[no-untyped-call]
        return found
    return torch.ops.aten.silu_backward(grad, x)


def silu_and_slope_(x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute `silu`, in the place of x, and its derivative: s + y - s y as below."""
    level = torch.sigmoid(x)
    value = x.mul_(level)
    return value, torch.addcmul(value, value, level, value=-1.0).add_(level)


def silu_derivatives(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute `silu` and its first two derivatives.

    With s = sigmoid(x), y = x s: y' = s + y (1 - s), y'' = (1 - s) (s + y' - s y).
    """
    level = torch.sigmoid(x)
    value = x * level
    rest = 1.0 - level
    slope = torch.addcmul(level, value, rest)
    return value, slope, rest.mul_((level + slope).addcmul_(level, value, value=-1.0))


class _SiluVjp(torch.autograd.Function):
    """`silu_vjp`, whose derivative torch does not have."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(grad, x)
        return torch.ops.aten.silu_backward(grad, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, Tensor]:
        grad, x = ctx.saved_tensors
        _, slope, curve = silu_derivatives(x)
        return slope.mul_(given), curve.mul_(grad).mul_(given)


def add(x: Tensor, y: Tensor) -> Tensor:
    """Add y to x, in place unless autograd records."""
    return x + y if torch.is_grad_enabled() else x.add_(y)


def inverse_norm(x: Tensor, centred: bool) -> Tensor:
    """Compute 1 / sqrt(mean(x^2) + eps) over the last dimension, kept as a dimension of one.

    Args:
        x: (..., D).
        centred: Whether the mean of x is zero already, as in a LayerNorm; its eps is another.
    """
    eps = 1e-5
    if not centred:
        # What torch's RMSNorm takes by default.
        eps = 1.1920928955078125e-07 if x.dtype == torch.float32 else 2.220446049250313e-16
    if torch.is_grad_enabled():
        return torch.rsqrt((x * x).mean(dim=-1, keepdim=True) + eps)
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm.mul_(norm).div_(x.shape[-1]).add_(eps).rsqrt_()


def normalise(x: Tensor, layer_norm: bool) -> tuple[Tensor, Tensor]:
    """Normalise the last dimension; return the result and the factor, (..., 1).

    Args:
        x: (..., D).
        layer_norm: Subtract the mean first; otherwise root mean square only.
    """
    if not torch.jit.is_scripting() and torch.is_grad_enabled():
        found: tuple[Tensor, Tensor] = _Normalise.apply(  # type: ignore[no-untyped-call]
            x, layer_norm
        )
        return found
    return _normalise(x, layer_norm)


def normalise_vjp(grad: Tensor, normed: Tensor, inverse: Tensor, layer_norm: bool) -> Tensor:
    """Compute the gradient over what was normalised; ``grad`` may be overwritten.

    Args:
        grad: Gradient over the normalised values, (..., D).
        normed: What `normalise` returned, (..., D).
        inverse: Its factor.
        layer_norm: As in `normalise`.
    """
    if not torch.jit.is_scripting() and torch.is_grad_enabled():
        found: Tensor = _NormaliseVjp.apply(  # type: ignore[no-untyped-call]
            grad, normed, inverse, layer_norm
        )
        return found
    return _normalise_vjp(grad, normed, inverse, layer_norm)


def _normalise(x: Tensor, layer_norm: bool) -> tuple[Tensor, Tensor]:
    if layer_norm:
        x = x - x.mean(dim=-1, keepdim=True)
    inverse = inverse_norm(x, layer_norm)
    return x * inverse, inverse


def _normalise_vjp(grad: Tensor, normed: Tensor, inverse: Tensor, layer_norm: bool) -> Tensor:
    projection = (grad * normed).sum(dim=-1, keepdim=True)
    if layer_norm:
        grad.sub_(grad.mean(dim=-1, keepdim=True))
    return grad.addcmul_(normed, projection, value=-1.0 / normed.shape[-1]).mul_(inverse)


class _Normalise(torch.autograd.Function):
    """n(x) and r(x) = (mean(x^2) + eps)^(-1/2), whose gradient over x is -r^2 n / D."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer_norm: bool) -> tuple[Tensor, Tensor]:
        normed, inverse = _normalise(x, layer_norm)
        ctx.layer_norm = layer_norm
        ctx.save_for_backward(normed, inverse)
        return normed, inverse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_normed: Tensor, of_inverse: Tensor) -> tuple[Tensor, None]:
        normed, inverse = ctx.saved_tensors
        grad = _normalise_vjp(of_normed.clone(), normed, inverse, ctx.layer_norm)
        factor = of_inverse * inverse * inverse
        return grad.addcmul_(normed, factor, value=-1.0 / normed.shape[-1]), None


class _NormaliseVjp(torch.autograd.Function):
    """r (g - n mean(n g)), differentiated over g, n and r."""

    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, normed: Tensor, inverse: Tensor, layer_norm: bool
    ) -> Tensor:
        ctx.layer_norm = layer_norm
        ctx.save_for_backward(grad, normed, inverse)
        return _normalise_vjp(grad.clone(), normed, inverse, layer_norm)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        grad, normed, inverse = ctx.saved_tensors
        size = normed.shape[-1]
        of_grad = _normalise_vjp(given.clone(), normed, inverse, ctx.layer_norm)
        # The same numbers, since the map from g to the result is symmetric.
        of_inverse = (of_grad * grad).sum(dim=-1, keepdim=True) / inverse
        along_grad = (normed * grad).sum(dim=-1, keepdim=True)
        along_given = (normed * given).sum(dim=-1, keepdim=True)
        of_normed = torch.mul(given, along_grad * inverse * (-1.0 / size))
        of_normed.addcmul_(grad, along_given * inverse, value=-1.0 / size)
        return of_grad, of_normed, of_inverse, None


def gate(x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute v sigmoid(g) of x = (v, g) in the last dimension, (..., F) of (..., 2 F).

    Also returns what `gate_vjp` needs, (..., 2 F): x where autograd records (in TorchScript for its
    own use only, since `gate_vjp` is not called then), elsewhere the derivatives over v and g.
    """
    if not torch.jit.is_scripting() and torch.is_grad_enabled():
        found: Tensor = _Gate.apply(x)  # type: ignore[no-untyped-call]
        return found, x
    if torch.is_grad_enabled():
        return torch.nn.functional.glu(x, dim=-1), x
    width = x.shape[-1] // 2
    level = torch.sigmoid(x[..., width:])
    hidden = x[..., :width] * level
    torch.addcmul(hidden, hidden, level, value=-1.0, out=x[..., width:])
    x[..., :width].copy_(level)
    return hidden, x


def gate_vjp(grad: Tensor, saved: Tensor) -> Tensor:
    """Compute the gradient over x from that over `gate`, (..., 2 F) of (..., F)."""
    if not torch.jit.is_scripting() and torch.is_grad_enabled():
        found: Tensor = _GateVjp.apply(grad, saved)  # type: ignore[no-untyped-call]
        return found
    width = grad.shape[-1]
    both = torch.empty_like(saved, dtype=grad.dtype)
    torch.mul(grad, saved[..., :width], out=both[..., :width])
    torch.mul(grad, saved[..., width:], out=both[..., width:])
    return both


def _gate_vjp(grad: Tensor, x: Tensor) -> Tensor:
    value, level = x.chunk(2, dim=-1)
    level = torch.sigmoid(level)
    of_value = grad * level
    return torch.cat([of_value, (value * of_value).mul_(1.0 - level)], dim=-1)


class _Gate(torch.autograd.Function):
    """`gate`, which keeps its argument only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.nn.functional.glu(x, dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _gate_vjp(grad, *ctx.saved_tensors)


class _GateVjp(torch.autograd.Function):
    """(h s, h v s (1 - s)) with s = sigmoid(g), differentiated over h, v and g."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(grad, x)
        return _gate_vjp(grad, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, Tensor]:
        grad, x = ctx.saved_tensors
        value, level = x.chunk(2, dim=-1)
        of_value, of_gate = given.chunk(2, dim=-1)
        level = torch.sigmoid(level)
        slope = level * (1.0 - level)
        of_grad = (of_value * level).addcmul_(of_gate * value, slope)
        scaled = slope.mul_(grad)
        of_second = torch.addcmul(of_value, of_gate * value, 1.0 - 2.0 * level).mul_(scaled)
        return of_grad, torch.cat([scaled.mul_(of_gate), of_second], dim=-1)
