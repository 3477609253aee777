# SPDX-License-Identifier: Apache-2.0
"""Signs the rendered tree and says what has changed since: what Argo CD applies is what somebody has looked at."""
