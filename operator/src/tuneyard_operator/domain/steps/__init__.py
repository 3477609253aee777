# SPDX-License-Identifier: Apache-2.0
"""The steps of a job once it is accepted, one module each: what is met is told with its facts, else what it waits for."""
