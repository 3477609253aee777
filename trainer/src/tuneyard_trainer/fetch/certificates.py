# SPDX-License-Identifier: Apache-2.0
"""What every client says of a server whose certificate it does not trust."""

import ssl

from tuneyard_trainer.pod.failures import StageFailure, bad_input


def untrusted(name: str, error: BaseException) -> StageFailure | None:
    """The failure of `name`, if a certificate is behind an error; trying again would not help."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(found):
            why = getattr(found, "verify_message", None) or str(found)
            return bad_input(
                f"{name}: the server's certificate is not trusted: {why}; try SSL_CERT_FILE in the env of the FineTuneRuntime,"
                " if the authority is your own"
            )
        reason = getattr(found, "reason", None)
        found = reason if isinstance(reason, BaseException) else found.__cause__ or found.__context__
    return None
