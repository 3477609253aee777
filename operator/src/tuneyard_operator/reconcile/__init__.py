# SPDX-License-Identifier: Apache-2.0
"""gather -> decide -> apply -> report, one pass at a time for each FineTuneJob; knows ports, not adapters."""
