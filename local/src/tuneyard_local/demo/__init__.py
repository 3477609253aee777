# SPDX-License-Identifier: Apache-2.0
"""`make demo`: the main job on the local cluster, from nothing to an answer, for a person who watches."""
