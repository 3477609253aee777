# SPDX-License-Identifier: Apache-2.0
"""kopf wiring: events go into the store and the queue, and nothing is decided here."""
