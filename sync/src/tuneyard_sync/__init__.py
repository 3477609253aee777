# SPDX-License-Identifier: Apache-2.0
"""`tuneyard-adapter-sync`: keeps a server's folder of adapters, and what the server has loaded, as a registry says."""
