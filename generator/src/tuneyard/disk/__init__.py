# SPDX-License-Identifier: Apache-2.0
"""What goes to the disk: the rendered tree, and the note of which environments need no rendering."""
