# SPDX-License-Identifier: Apache-2.0
"""`python -m tuneyard` is `tuneyard`."""

from tuneyard.main import main

main()
