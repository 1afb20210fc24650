"""The cloud of a deployment: rounds without end over Flower's own grid, on real devices."""
