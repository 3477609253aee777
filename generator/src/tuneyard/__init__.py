"""The Tuneyard generator: one environment file becomes the whole GitOps tree."""
