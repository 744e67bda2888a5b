"""The changes of a config, made to a batch on its devices.

An example's key comes of the run's key, the epoch and the example's number: neither the batch that it is in nor the
device that changes it has a part in that.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from cnnjax.augment.mixing import mix
from cnnjax.augment.pipeline import make_change
from cnnjax.config_augment import BatchAugmentation, CutMix, ImageAugmentation, Mixup

Batch = Mapping[str, jax.Array]
ChangeBatch = Callable[[Batch, jax.Array], Batch]

# One fold_in a purpose.
_CHANGE, _MIX = 0, 1


def make_batch_change(entries: Sequence[ImageAugmentation | BatchAugmentation]) -> ChangeBatch:
    """All entries as one function of a batch and the run's key.

    Images are changed one by one, in the order of the entries; then mixup and CutMix blend neighbours, whose `label`
    becomes theirs by `share` and `other_label` by the rest.

    Returns:
        A function of a batch with `image` (batch, height, width, channels) uint8, `label`, `mask`, and `epoch` and
        `index` (batch,) int32, to one with `image` float32 from 0 to 1 and without `epoch` and `index`.
    """
    blends = [entry for entry in entries if isinstance(entry, Mixup | CutMix)]
    change = make_change([entry for entry in entries if not isinstance(entry, Mixup | CutMix)])

    def change_batch(batch: Batch, key: jax.Array) -> Batch:
        keys = jax.vmap(lambda epoch, index: jax.random.fold_in(jax.random.fold_in(key, epoch), index))(
            batch["epoch"], batch["index"]
        )
        images = batch["image"].astype(jnp.float32) / 255
        of_pixels = batch["label"].ndim == 3
        images, labels = jax.vmap(lambda key, image, label: change(jax.random.fold_in(key, _CHANGE), image, label))(
            keys, images, batch["label"] if of_pixels else None
        )
        rest = {name: leaf for name, leaf in batch.items() if name not in ("epoch", "index")}
        new = {**rest, "image": images, "label": batch["label"] if labels is None else labels}
        return _blend(blends, new, keys) if blends else new

    return change_batch


def _blend(entries: Sequence[BatchAugmentation], batch: Batch, keys: jax.Array) -> Batch:
    pairs = {name: leaf.reshape(-1, 2, *leaf.shape[1:]) for name, leaf in batch.items()}

    def blend(images: jax.Array, masks: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        mixed, shares = images, jnp.ones(2)
        for number, entry in enumerate(entries):
            mixed, shares = mix(entry, jax.random.fold_in(jax.random.fold_in(key, _MIX), number), mixed, shares)
        # What could not be read is given to nobody.
        whole = masks.min() > 0
        return jnp.where(whole, mixed, images), jnp.where(whole, shares, 1.0)

    images, shares = jax.vmap(blend)(pairs["image"], pairs["mask"], keys[::2])
    other = pairs["label"][:, ::-1].reshape(batch["label"].shape)
    return {**batch, "image": images.reshape(batch["image"].shape), "share": shares.reshape(-1), "other_label": other}
