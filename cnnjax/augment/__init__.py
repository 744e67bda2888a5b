"""Changes of training images: pure functions of a key and one image, run on the device within the training step."""
