"""The network: each block once, with its derivative beside it.

Every block has ``forward(x, ...) -> y, saved`` and ``vjp(grad_y, saved) -> grad_x``: the product of
a gradient with the block's Jacobian. Simulations run both without autograd. Training runs both too,
and autograd goes once through the two to reach the weights. Whatever is here must be scriptable.
"""
