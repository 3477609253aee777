# SPDX-License-Identifier: Apache-2.0
"""The steps of an accepted job, one module each: a met step records its facts, an unmet one what it waits for."""
