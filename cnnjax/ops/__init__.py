"""Pure functions on arrays that layers are made of."""
