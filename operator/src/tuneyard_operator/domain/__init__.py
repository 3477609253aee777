# SPDX-License-Identifier: Apache-2.0
"""Everything that is decided about a FineTuneJob, as pure code: no clock, no network, no framework."""
