# SPDX-License-Identifier: Apache-2.0
"""The rendered forms of Argo Workflows."""
