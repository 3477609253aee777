# SPDX-License-Identifier: Apache-2.0
"""FineTuneJobs from Python: the verbs of `kubectl tuneyard`, typed and synchronous.

    from tuneyard.client import Client

    client = Client("team-a")
    print(client.why("answers").sentence)

Every method raises `InputError`, whose text says what is wrong and what to try.
"""

from tuneyard.client.argo_server import Access, ArgoServer
from tuneyard.client.bundle import Bundle
from tuneyard.client.client import Client
from tuneyard.client.comparing import Comparison, Difference
from tuneyard.client.fetching import Fetched
from tuneyard.client.job import Job
from tuneyard.client.saving import Restored, Saved
from tuneyard.client.submitting import Forms, Parameter, Submitted
from tuneyard.client.usage import Usage
from tuneyard.client.why import Why
from tuneyard.findings import InputError

__all__ = [
    "Access",
    "ArgoServer",
    "Bundle",
    "Client",
    "Comparison",
    "Difference",
    "Fetched",
    "Forms",
    "InputError",
    "Job",
    "Parameter",
    "Restored",
    "Saved",
    "Submitted",
    "Usage",
    "Why",
]
