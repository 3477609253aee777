# SPDX-License-Identifier: Apache-2.0
"""What the double does although no published source says that the real services do it.

Routes, fields, types and enumerations are those of the client `nemo-microservices` 1.5.0; the commit protocol of the Data
Store is what `huggingface_hub` speaks. Everything else that a caller could rely on is listed here, by the service.
"""

ASSUMED: dict[str, tuple[str, ...]] = {
    "all services": (
        "a name that is taken is answered with 409, an entity that does not exist with 404, both with `detail` as text",
        "without or with a wrong token the answer is 401 where the double was given one",
    ),
    "Customizer": (
        "a job's name is unique inside its namespace, and a second POST with it is answered with 409",
        "config, target and data set of a POST must exist, else 404; a body of a wrong form gets 422",
        "a job passes created, pending and running, and `cancelling` between the request to cancel and `cancelled`",
        "a cancel of a job that is over is answered with 409",
        "`status_logs` tell why a job failed, newest last",
        "the output model `namespace/name@version` becomes a model entity of the name `name@version`",
        "its files are in the Data Store: repository `namespace/name`, revision `version`",
        "lists take page_size up to 100; an unknown filter is ignored",
    ),
    "Data Store": (
        "a file of 10 MB or more, or with an ending of weights, goes by LFS; the other ones are part of the commit",
        "creating a namespace twice is answered with 409",
        "it does not speak Xet",
        "a commit that names its parent is refused with 412 where another one has come between, as on the hub",
        "a revision may be the id of a commit, also of one that is not the last",
    ),
    "Evaluator": ("scores are those that the double was told to give",),
}
