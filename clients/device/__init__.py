"""A real device: what stands around the device work of `clients`, which is the same in a simulation."""
