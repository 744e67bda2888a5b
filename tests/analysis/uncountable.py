"""Networks of which nothing says what they cost."""

from flax import linen as nn

from cnnjax.nn.network import Network, Outputs


class Looped(Network, kw_only=True):
    """Calls a layer in a loop."""

    @nn.compact
    def __call__(self, images, *, train):
        repeat = nn.scan(
            lambda dense, x, _: (dense(x), None), variable_axes={"params": 0}, split_rngs={"params": True}, length=3
        )
        x, _ = repeat(nn.Dense(3, name="dense"), images.mean((1, 2)), None)
        return Outputs(logits=x, aux={}, features={})


class Bare(Network, kw_only=True):
    """Holds a parameter outside of any layer."""

    @nn.compact
    def __call__(self, images, *, train):
        offset = self.param("offset", nn.initializers.zeros, (1,))
        return Outputs(logits=images.mean((1, 2, 3), keepdims=True) + offset, aux={}, features={})
