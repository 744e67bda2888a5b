"""Inception v3: Szegedy, Vanhoucke, Ioffe, Shlens and Wojna 2015, "Rethinking the Inception Architecture for Computer
Vision", arXiv:1512.00567, Table 1, Figures 4 to 8 and 10, section 6; laid out as the authors' release in TF-slim.

Large convolutions are factorised into smaller ones, a 7x7 into 1x7 and 7x1; maps shrink by convolutions and a pool side
by side. A module sees its input through a 1x1; a 5x5 (7x7, 3x3); two 3x3 (7x7); an average pool, each after a 1x1.

    map at 299x299   features   modules (TF-slim's names)    channels
    147x147          stem       three 3x3 convolutions        64
    71x71            stage1     pool, 1x1, 3x3                192
    35x35            stage2     pool, 5b, 5c, 5d              256, 288, 288
    17x17            stage3     6a (halves), 6b, 6c, 6d, 6e   768
    8x8              stage4     7a (halves), 7b, 7c           1280, 2048, 2048, then average, dropout, dense

Deliberate differences:
- Where Table 1 differs from the release, the release counts: between the pool and the modules it has a 1x1 to 80, a 3x3
  to 192 and a second pool; the first of the 35x35 modules ends in 256 channels; each of them keeps a 5x5.
- The auxiliary classifier of section 4 is off by default, as most take it today; `auxiliary_classifiers: 1` adds it. On
  maps smaller than the published 17x17 its windows are padded.
- BatchNorm has a trained factor (the release none: `norm_scale`), and average pools do not count the padding, as in
  TensorFlow; torchvision and timm do (`count_padding`).
- Dropout of 0.5 is torchvision's; the release has 0.2, the paper does not tell.
- `factorization: full` puts one 7x7 where a 1x7 and a 7x1 follow each other, what section 3.2 starts from.
"""

from typing import Literal

import jax
from flax import linen as nn

from cnnjax.config_base import Fraction
from cnnjax.models.variant import Peers, Variant
from cnnjax.nn.branches import Conv
from cnnjax.nn.inception import (
    Factorization,
    InceptionNetwork,
    Table,
    halving_pool,
    inception_a,
    inception_b,
    inception_c,
    plain_stem,
    reduction_a,
    reduction_b,
)
from cnnjax.nn.network import Outputs
from cnnjax.nn.norm import TF_BATCH_NORM
from cnnjax.nn.rounding import stretch
from cnnjax.nn.stage import Stage

# The modules that differ: channels after the average pool, and between the factors of the 7x7.
PROJECTION = {"5b": 32, "5c": 64, "5d": 64}
BETWEEN_FACTORS = {"6b": 128, "6c": 160, "6d": 160, "6e": 192}


class InceptionV3(InceptionNetwork, kw_only=True):
    """Inception v3. `depth` multiplies each stage's modules of stride 1: each repeated, or fewer with the last kept."""

    dropout: Fraction = 0.5
    """Before the head."""
    factorization: Literal["asymmetric", "full"] = "asymmetric"
    """Whether a 7x7 is a 1x7 and a 7x1 one after the other, or one convolution."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """(batch, height, width, channels) to logits and the last map of each resolution.

        ConfigError below 75x75, or 7x7 with the small stem.
        """
        layers = self.layers(train)
        module_a = (self._module_a(name) for name in stretch(tuple(PROJECTION), self.depth).values())
        module_b = (self._module_b(name) for name in stretch(tuple(BETWEEN_FACTORS), self.depth).values())
        module_c = inception_c(320, 384, (Conv(448), Conv(384, 3)), 384, 192, self.count_padding)
        factors: Factorization = "full" if self.factorization == "full" else "row_column"
        first = (self.block(layers, plain_stem(self.stem)), self.block(layers, halving_pool(self.stem)))
        tables = (
            tuple(module_a),
            (reduction_a(64, 96, 96, 384), *module_b),
            (reduction_b((192, 320), (192, 192, 192, 192), factors), *(module_c,) * self.repeats(2)),
        )
        stage2, stage3, stage4 = (tuple(self.block(layers, table, self.se_ratio) for table in rows) for rows in tables)
        blocks = (first[:1], (first[1], *stage2), stage3, stage4)
        stages = (Stage(row, remat=self.remat, name=f"stage{number}") for number, row in enumerate(blocks, 1))
        return self.through(layers, images, tuple(stages))

    def _module_a(self, name: str) -> Table:
        return inception_a(64, (48, 5, 64), PROJECTION[name], self.count_padding)

    def _module_b(self, name: str) -> Table:
        width, full = BETWEEN_FACTORS[name], self.factorization == "full"
        return inception_b(
            192, (width, width, 192), (width, width, width, width, 192), 192,
            ("full", "full") if full else ("row_column", "column_row"), self.count_padding,
        )  # fmt: skip


_PAPER = "Szegedy et al. 2015, Rethinking the Inception Architecture for Computer Vision, arXiv:1512.00567"

VARIANTS = {"inception_v3": Variant(InceptionV3, (299, 299, 3), _PAPER)}
PEERS: Peers = {
    "torchvision/inception_v3": ("inception_v3", {"count_padding": True}),
    "torchvision/inception_v3+aux": ("inception_v3", {"count_padding": True, "auxiliary_classifiers": 1}),
    "timm/inception_v3": ("inception_v3", {"count_padding": True, "dropout": 0.0}),
    "keras/InceptionV3": ("inception_v3", {"norm_scale": False, "dropout": 0.0, **TF_BATCH_NORM}),
}
