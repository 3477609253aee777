# SPDX-License-Identifier: Apache-2.0
"""Templates of Argo Workflows: forms that people submit, and the stages that they are made of. Pure data, no client."""
