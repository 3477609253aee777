"""A real local Kubernetes cluster for trying and testing Tuneyard."""
