# SPDX-License-Identifier: Apache-2.0
"""The contract of Tuneyard: FineTuneJob, FineTuneRuntime, the pod contract."""
