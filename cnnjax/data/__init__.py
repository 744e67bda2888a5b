"""Examples in memory as bytes, and the batches drawn from them. Imports neither models nor training, and no JAX."""
