"""Inception v4: Szegedy, Ioffe, Vanhoucke and Alemi 2016, "Inception-v4, Inception-ResNet and the Impact of Residual
Connections on Learning", arXiv:1602.07261, Figures 3 to 9.

A pure Inception network, more uniform than v3: a stem with modules of its own, then equal modules on each size of map.

    map at 299x299   features   modules (the paper's names)         channels
    147x147          stem       three 3x3 convolutions              64
    71x71            stage1     stem: two concatenations            192
    35x35            stage2     stem: the third; 4 x Inception-A    384
    17x17            stage3     Reduction-A; 7 x Inception-B        1024
    8x8              stage4     Reduction-B; 3 x Inception-C        1536, then average, dropout, dense

Deliberate differences:
- Where a 1x7 and a 7x1 (or a 1x3 and a 3x1) follow each other, `factor_order: release` is that of the authors' code in
  TF-slim, which published weights have; `drawn` is that of the figures. Figure 5 draws 1x7 twice in one branch: the
  second is read as 7x1, as the code has it.
- Average pools do not count the padding, as in TensorFlow.
- `auxiliary_classifiers: 1` adds the release's second classifier, which the paper does not draw.
"""

from typing import Literal

import jax
from flax import linen as nn
from pydantic import PositiveInt

from cnnjax.models.variant import Peers, Variant
from cnnjax.nn.branches import Conv
from cnnjax.nn.inception import (
    Factorization,
    InceptionNetwork,
    factorized,
    inception_a,
    inception_b,
    inception_c,
    reduction_a,
    reduction_b,
    split_stem,
)
from cnnjax.nn.network import Outputs
from cnnjax.nn.stage import Stage


class InceptionV4(InceptionNetwork, kw_only=True):
    """Inception v4. `depth` multiplies `stage_sizes`."""

    stage_sizes: tuple[PositiveInt, PositiveInt, PositiveInt] = (4, 7, 3)
    """How many modules A, B and C."""
    factor_order: Literal["release", "drawn"] = "release"
    """Which of two one-dimensional convolutions comes first."""
    scan: bool = False
    """Compile a stage's equal modules once, its first apart; their parameters are stacked, see `cnnjax.nn.stage`."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """(batch, height, width, channels) to logits and the last map of each resolution.

        ConfigError below 75x75, or 7x7 with the small stem.
        """
        layers = self.layers(train)
        drawn = self.factor_order == "drawn"
        stem = [self.block(layers, table) for table in split_stem(self.stem, "column_row" if drawn else "row_column")]
        last_pairs: Factorization = "row_column" if drawn else "column_row"
        tables = (
            inception_a(96, (64, 3, 96), 96, self.count_padding),
            inception_b(
                384, (192, 224, 256), (192, 192, 224, 224, 256), 128, ("row_column", last_pairs), self.count_padding
            ),
            inception_c(256, 384, (Conv(384), *factorized(3, 448, 512, last_pairs)), 256, 256, self.count_padding),
        )
        halving = (
            stem[2],
            self.block(layers, reduction_a(192, 224, 256, 384), self.se_ratio),
            self.block(layers, reduction_b((192, 192), (256, 256, 320, 320), "row_column"), self.se_ratio),
        )
        stages = (
            Stage(tuple(stem[:2]), remat=self.remat, name="stage1"),
            *(
                Stage(
                    (first, *(self.block(layers, table, self.se_ratio),) * self.repeats(size)),
                    remat=self.remat, scan=self.scan, keeps_channels=False, name=f"stage{number}",
                )
                for number, (first, table, size) in enumerate(zip(halving, tables, self.stage_sizes, strict=True), 2)
            ),
        )  # fmt: skip
        return self.through(layers, images, stages)


_PAPER = "Szegedy, Ioffe, Vanhoucke, Alemi 2016, Inception-v4, Inception-ResNet, arXiv:1602.07261"

VARIANTS = {"inception_v4": Variant(InceptionV4, (299, 299, 3), _PAPER)}
PEERS: Peers = {"timm/inception_v4": ("inception_v4", {"dropout": 0.0})}
